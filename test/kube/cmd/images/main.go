// Command images packs the container images that the end-to-end tests run, without a registry and without a container
// engine: the sandbox image, pause, and the one of the upstream tests, agnhost, each under the name by which this version of
// Kubernetes asks for it. The programs that the tests call inside of agnhost's containers, such as a shell and curl, are
// this machine's own, with the libraries that they need.
//
//	images -dir DIR -pause FILE -agnhost FILE PROGRAM...
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	imagenames "k8s.io/kubernetes/test/utils/image"
)

func main() {
	dir := flag.String("dir", ".", "where pause.tar and agnhost.tar go, and names.json, their names")
	pause := flag.String("pause", "", "the static binary of the pause image")
	agnhost := flag.String("agnhost", "", "the static binary of the agnhost image")
	flag.Parse()
	if err := run(*dir, *pause, *agnhost, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(dir, pause, agnhost string, programs []string) error {
	names := map[string]string{"pause": imagenames.GetPauseImageName(), "agnhost": imagenames.GetE2EImage(imagenames.Agnhost)}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "names.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}

	var pauseFiles layer
	pauseFiles.copy("pause", pause)
	if err := pauseFiles.write(filepath.Join(dir, "pause.tar"), names["pause"], "/pause"); err != nil {
		return err
	}

	var files layer
	files.copy("agnhost", agnhost)
	files.link("agnhost-2", "agnhost")
	files.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	files.text("etc/group", "root:x:0:\n")
	files.text("etc/nsswitch.conf", "hosts: files dns\n")
	// GNU wget tries 20 times; the one of the original image, and the tests, know one try.
	files.text("etc/wgetrc", "tries = 1\n")
	files.directory("tmp", "root", "uploads", "proc", "sys", "dev")
	for _, program := range programs {
		files.program(program)
	}
	files.link("bin/sh", "dash")
	return files.write(filepath.Join(dir, "agnhost.tar"), names["agnhost"], "/agnhost")
}

// write packs the layer as the image of that name.
func (l *layer) write(path, reference, entrypoint string) error {
	content, err := l.bytes()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{entrypoint},
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			WorkingDir: "/",
		},
	})
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	image, err = mutate.AppendLayers(image, static.NewLayer(content, types.DockerUncompressedLayer))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := tarball.WriteToFile(path, tag, image); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
