package config

// Enum is a string type of the schema that only takes some values.
type Enum interface {
	// Values are the allowed ones, as written in the file.
	Values() []string
}

// Values implements [Enum].
func (API) Values() []string { return []string{string(APIManager)} }

// Values implements [Enum].
func (Authentication) Values() []string {
	return []string{string(AuthenticationSession), string(AuthenticationBasic)}
}

// Values implements [Enum].
func (Size) Values() []string {
	return []string{string(SizeSmall), string(SizeMedium), string(SizeLarge), string(SizeXLarge)}
}

// Values implements [Enum].
func (PreserveClientIP) Values() []string {
	return []string{string(PreserveClientIPAuto), string(PreserveClientIPAlways), string(PreserveClientIPNever)}
}

// Values implements [Enum].
func (Algorithm) Values() []string {
	return []string{string(AlgorithmRoundRobin), string(AlgorithmLeastConnection), string(AlgorithmIPHash)}
}

// Values implements [Enum].
func (AuditMode) Values() []string {
	return []string{string(AuditModeRepair), string(AuditModeReport), string(AuditModeOff)}
}
