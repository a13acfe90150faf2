package lab

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/manifests"
)

// port80 and port443 find the ports of Services, but neither those of containers nor target ports.
var (
	port80  = regexp.MustCompile(`(?m)^([ -]+port:) 80$`)
	port443 = regexp.MustCompile(`(?m)^([ -]+port:) 443$`)
)

// WriteExamples writes the example manifests into a directory, made anew, with ports that this user can be served on.
func (l *Lab) WriteExamples(dir string) error {
	ports, err := l.Ports()
	if err != nil {
		return err
	}
	examples, err := fs.Sub(manifests.FS, "examples")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.CopyFS(dir, examples); err != nil {
		return err
	}
	if ports.Privileged() {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = port80.ReplaceAll(text, fmt.Appendf(nil, "$1 %d", ports.HTTP))
		text = port443.ReplaceAll(text, fmt.Appendf(nil, "$1 %d", ports.HTTPS))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
	}
	return nil
}
