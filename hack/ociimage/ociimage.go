// Package ociimage packs a program into a container image that holds nothing else, without a container engine.
package ociimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
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

// user is who the program runs as where nothing else is said: nobody in particular.
const user = "65532:65532"

// Pack writes an OCI image layout, as a tar file, of an image that holds one static program for Linux, written in Go, which it
// runs. The reference is the image's whole name, such as docker.io/library/hello:v1.
func Pack(w io.Writer, reference, program string) error {
	binary, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	arch, err := architecture(program)
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
		"architecture": arch, "os": "linux",
		"config": object{"Entrypoint": []string{entry}, "User": user},
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
	manifest.Annotations = map[string]string{"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference}
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

// architecture is what a program was built for.
func architecture(program string) (string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", fmt.Errorf("%s is no program in Go: %w", program, err)
	}
	built := map[string]string{}
	for _, s := range info.Settings {
		built[s.Key] = s.Value
	}
	if built["GOOS"] != "linux" || built["GOARCH"] == "" {
		return "", fmt.Errorf("%s was built for %s/%s, not for Linux", program, built["GOOS"], built["GOARCH"])
	}
	return built["GOARCH"], nil
}
