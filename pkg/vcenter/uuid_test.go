package vcenter

import (
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

func TestProviderID(t *testing.T) {
	const id = "4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01"
	if got := ProviderID(strings.ToUpper(id)); got != "nsxt://"+id {
		t.Errorf("ProviderID: %s", got)
	}
	for text, want := range map[string]string{
		"nsxt://" + id:                     id,
		"nsxt://" + strings.ToUpper(id):    id,
		"vsphere://" + id:                  id,
		"vsphere://" + strings.ToUpper(id): id,
		"":                                 "",
		id:                                 "",
		"nsxt:///" + id:                    "",
		"NSXT://" + id:                     "",
		"aws://" + id:                      "",
		"nsxt://":                          "",
		"nsxt://node-1":                    "",
		"nsxt://{" + id + "}":              "",
		"nsxt://urn:uuid:" + id:            "",
		"nsxt://" + strings.ReplaceAll(id, "-", ""): "",
		"nsxt://" + id[:35] + "g":                   "",
	} {
		got, err := ParseProviderID(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("ParseProviderID(%q): %q, %v, want %q", text, got, err, want)
		}
	}
}

func FuzzParseProviderID(f *testing.F) {
	f.Add("nsxt://4237a0c4-1f5e-4b7e-9a53-0d1c6f1b2a01")
	f.Add("vsphere://4237A0C4-1F5E-4B7E-9A53-0D1C6F1B2A01")
	f.Add("nsxt://")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseProviderID(text)
		if err != nil {
			return
		}
		again, err := ParseProviderID(ProviderID(id))
		if err != nil || again != id {
			t.Errorf("%q gives %q, whose provider id gives %q, %v", text, id, again, err)
		}
	})
}

func TestByteOrders(t *testing.T) {
	got := byteOrders(uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"))
	want := []string{"00112233-4455-6677-8899-aabbccddeeff", "33221100-5544-7766-8899-aabbccddeeff"}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, want %v", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		id, err := uuid.FromBytes(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		if err != nil {
			t.Fatal(err)
		}
		forms := byteOrders(id)
		last := uuid.MustParse(forms[len(forms)-1])
		if back := byteOrders(last); back[len(back)-1] != id.String() {
			t.Fatalf("%s has the forms %v, and the last of them %v", id, forms, back)
		}
	})
}
