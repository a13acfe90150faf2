package nsxsim

import (
	"fmt"
	"slices"
	"strings"
)

// The conditions in the expressions of groups of the Policy API: how they are checked,
// and the membership criteria of the Manager that they are realised in.

const (
	condition           = "Condition"
	nestedExpression    = "NestedExpression"
	externalIDs         = "ExternalIDExpression"
	maxExpressionsDepth = 5
)

// memberTypes are the Manager's kinds of what conditions look for; those that have none
// here find nothing.
var memberTypes = map[string]Kind{
	"VirtualMachine": KindVirtualMachine, "IPSet": KindIPSet, "Group": KindNSGroup,
	"Segment": KindLogicalSwitch, "LogicalSwitch": KindLogicalSwitch, "SegmentPort": KindLogicalPort, "LogicalPort": KindLogicalPort,
}

// conditionKeys are what conditions look at, as the Manager calls it; Tag is apart.
var conditionKeys = map[string]string{"Tag": "", "Name": "name", "OSName": "os_name", "ComputerName": "computer_name"}

// checkExpression tells what is wrong with an expression: it alternates between
// criteria and conjunction operators, of which AND stands between conditions only, and
// conditions say what they look for.
func checkExpression(path string, expression []document, depth int) *Error {
	if depth > maxExpressionsDepth {
		return refusePolicy(codePolicyInvalid, "The expression of group path=[%s] is nested too deeply.", path)
	}
	isConjunction := func(e document) bool { return e.str("resource_type") == conjunction }
	for i, e := range expression {
		switch {
		case isConjunction(e) != (i%2 == 1) || isConjunction(e) && i == len(expression)-1:
			return refusePolicy(codePolicyInvalid, "The expression of group path=[%s] must alternate between criteria and conjunction operators.", path)
		case isConjunction(e) && e.str("conjunction_operator") == "AND" && !(conditional(expression[i-1]) && conditional(expression[i+1])):
			return refusePolicy(codePolicyInvalid, "The expression of group path=[%s] joins what is no condition by AND.", path)
		case e.str("resource_type") == condition:
			if err := checkCondition(e); err != nil {
				return err
			}
		case e.str("resource_type") == nestedExpression:
			if err := checkExpression(path, e.objects("expressions"), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func conditional(e document) bool {
	return slices.Contains([]string{condition, nestedExpression}, e.str("resource_type"))
}

func checkCondition(c document) *Error {
	for _, name := range []string{"member_type", "key", "operator", "value"} {
		if c.str(name) == "" {
			return invalid(fmt.Sprintf("expression.%s is required", name))
		}
	}
	return nil
}

// branches gives an expression as alternatives, each of conditions that must all hold.
func branches(expression []document) [][]document {
	var all [][]document
	var current [][]document
	for i, e := range expression {
		var here [][]document
		switch e.str("resource_type") {
		case condition:
			here = [][]document{{e}}
		case nestedExpression:
			here = branches(e.objects("expressions"))
		default:
			continue
		}
		if i == 0 || expression[i-1].str("conjunction_operator") != "AND" {
			all, current = append(all, current...), here
			continue
		}
		var joined [][]document
		for _, left := range current {
			for _, right := range here {
				joined = append(joined, slices.Concat(left, right))
			}
		}
		current = joined
	}
	return append(all, current...)
}

// criteria gives the membership criteria that an expression is realised in. A
// condition that the Manager cannot have, such as one on pods, finds nothing, and so
// does what is joined to it.
func criteria(expression []document) []map[string]any {
	var list []map[string]any
	for _, conditions := range branches(expression) {
		var expressions []map[string]any
		for _, c := range conditions {
			if e := criterion(c); e != nil {
				expressions = append(expressions, e)
			}
		}
		switch {
		case len(expressions) < len(conditions) || len(conditions) == 0:
		case len(expressions) == 1:
			list = append(list, expressions[0])
		default:
			list = append(list, map[string]any{"resource_type": "NSGroupComplexExpression", "expressions": expressions})
		}
	}
	return list
}

// criterion gives what one condition is in the Manager, or nil. A tag is "scope|tag",
// or without a scope "tag".
func criterion(c document) map[string]any {
	target, known := memberTypes[c.str("member_type")]
	property, ok := conditionKeys[c.str("key")]
	if !known || !ok || !slices.Contains(groupOperators, c.str("operator")) {
		return nil
	}
	if property != "" {
		return map[string]any{"resource_type": simpleExpression, "target_type": target, "target_property": property, "op": c.str("operator"), "value": c.str("value")}
	}
	scope, tag, scoped := strings.Cut(c.str("value"), "|")
	if !scoped {
		scope, tag = "", scope
	}
	e := map[string]any{"resource_type": tagExpression, "target_type": target, "scope": scope, "scope_op": "EQUALS", "tag": tag, "tag_op": c.str("operator")}
	if c.str("scope_operator") == "NOTEQUALS" {
		e["scope_op"] = "NOTEQUALS"
	}
	return e
}
