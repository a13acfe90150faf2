package cluster

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
	"testing"
)

// TestPackImage follows the image from its index to the program.
func TestPackImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "controller")
	if err := os.WriteFile(program, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := packImage(&packed, "docker.io/x/controller:dev", program); err != nil {
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
	if name := index.Manifests[0].Annotations["io.containerd.image.name"]; name != "docker.io/x/controller:dev" {
		t.Errorf("the image is called %q", name)
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	parse(blob(index.Manifests[0]), &manifest)
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	parse(blob(manifest.Config), &config)
	if config.Config.Entrypoint[0] != "/controller" || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("config %+v", config)
	}
	if got := string(untar(t, blob(manifest.Layers[0]))["controller"]); got != "binary" {
		t.Errorf("the program is %q", got)
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
