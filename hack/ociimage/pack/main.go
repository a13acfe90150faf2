// Command pack packs a program into a container image, a tar file that holds an OCI image layout:
//
//	pack -image docker.io/library/hello:v1 -out hello.tar PROGRAM
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/hack/ociimage"
)

func main() {
	image := flag.String("image", "", "the image's whole name")
	out := flag.String("out", "image.tar", "the file to write")
	flag.Parse()
	if *image == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*image, *out, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(image, out, program string) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	return errors.Join(ociimage.Pack(file, image, program), file.Close())
}
