// Command servicedocs writes the reference page of what users say to the controller on a Service, and of what it tells
// them, to standard output. Annotations, events and tags come from the constants of pkg/names, pkg/lb and pkg/nsx with
// their comments, metrics from pkg/nsx/transport; the words around them are in page.md.tmpl.
//
// Run it in the root of the repository: hack/update-service-docs.sh does.
package main

import (
	"fmt"
	"os"
)

func main() {
	page, err := render(".")
	if err != nil {
		fmt.Fprintln(os.Stderr, "servicedocs:", err)
		os.Exit(1)
	}
	os.Stdout.WriteString(page)
}
