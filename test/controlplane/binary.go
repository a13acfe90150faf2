package controlplane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// FindBinary returns the path of bin/kube in the checkout that holds the working directory. The error says how to build it.
func FindBinary() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "test", "kube", "go.mod")); err == nil {
			return inCheckout(dir)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("bin/kube: %s is not in a checkout of this project", start)
		}
	}
}

func inCheckout(dir string) (string, error) {
	binary := filepath.Join(dir, "bin", "kube")
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("the Kubernetes control plane is not built: run \"make bin/kube\" in %s: %w", dir, err)
	}
	return binary, nil
}
