package ociimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestPack follows the image from its index to the program, which is this test.
func TestPack(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(program)
	var packed bytes.Buffer
	if err := Pack(&packed, "docker.io/x/controller:dev", program); err != nil {
		t.Fatal(err)
	}
	files := untar(t, packed.Bytes())
	blob := func(d descriptor) []byte {
		content := files["blobs/"+filepath.Dir("sha256/x")+"/"+d.Digest[len("sha256:"):]]
		if len(content) != d.Size || fmt.Sprintf("sha256:%x", sha256.Sum256(content)) != d.Digest {
			t.Errorf("blob %+v has %d bytes", d, len(content))
		}
		return content
	}
	parse := func(text []byte, v any) {
		t.Helper()
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []descriptor }
	parse(files["index.json"], &index)
	if got := index.Manifests[0].Annotations["io.containerd.image.name"]; got != "docker.io/x/controller:dev" {
		t.Errorf("the image is called %q", got)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	parse(blob(index.Manifests[0]), &manifest)
	var config struct {
		Architecture string
		Config       struct{ Entrypoint []string }
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	parse(blob(manifest.Config), &config)
	if config.Architecture != runtime.GOARCH || config.Config.Entrypoint[0] != "/"+name || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("config %+v", config)
	}
	if got := untar(t, blob(manifest.Layers[0]))[name]; !bytes.Equal(got, binary) {
		t.Errorf("the program has %d bytes, want %d", len(got), len(binary))
	}
}

// Only what runs in such an image gets into one.
func TestPackRefusesOtherPrograms(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Pack(io.Discard, "docker.io/x/controller:dev", script); err == nil {
		t.Error("a script has been packed")
	}
}

func untar(t *testing.T, text []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
