// Command gendoc writes the reference page of the cloud config file to standard
// output. Keys, types, defaults and ranges come from the types of pkg/config
// themselves, and what they mean from the comments in their source, so the page
// is right by construction.
//
// Run it in the root of the repository: hack/update-config-docs.sh does.
package main

import (
	"fmt"
	"os"
)

func main() {
	page, err := render("pkg/config")
	if err != nil {
		fmt.Fprintln(os.Stderr, "gendoc:", err)
		os.Exit(1)
	}
	os.Stdout.WriteString(page)
}
