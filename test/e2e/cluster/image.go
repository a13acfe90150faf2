package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
)

// Media types of the Open Container Initiative.
const (
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociConfig   = "application/vnd.oci.image.config.v1+json"
	ociLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// descriptor points to a blob of an image.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// packImage writes an OCI image layout, as a tar file, of an image that holds one program, which it runs.
func packImage(w io.Writer, reference, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	entry := "/" + path.Base(program)
	var layer bytes.Buffer
	files := tar.NewWriter(&layer)
	if err := addFile(files, entry[1:], 0o755, binary); err != nil {
		return err
	}
	if err := files.Close(); err != nil {
		return err
	}

	image := tar.NewWriter(w)
	blob := func(mediaType string, content []byte) (descriptor, error) {
		digest := fmt.Sprintf("%x", sha256.Sum256(content))
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(content)}, addFile(image, "blobs/sha256/"+digest, 0o644, content)
	}
	layerBlob, err := blob(ociLayer, layer.Bytes())
	if err != nil {
		return err
	}
	type object = map[string]any
	marshalled := func(mediaType string, v object) (descriptor, error) {
		text, err := json.Marshal(v)
		if err != nil {
			return descriptor{}, err
		}
		return blob(mediaType, text)
	}
	config, err := marshalled(ociConfig, object{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": object{"Entrypoint": []string{entry}},
		"rootfs": object{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return err
	}
	manifest, err := marshalled(ociManifest, object{
		"schemaVersion": 2, "mediaType": ociManifest, "config": config, "layers": []descriptor{layerBlob},
	})
	if err != nil {
		return err
	}
	manifest.Annotations = map[string]string{"io.containerd.image.name": reference}
	index, err := json.Marshal(object{"schemaVersion": 2, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := addFile(image, "index.json", 0o644, index); err != nil {
		return err
	}
	if err := addFile(image, "oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	return image.Close()
}

func addFile(w *tar.Writer, name string, mode int64, content []byte) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := w.Write(content)
	return err
}
