package programs

import (
	"fmt"
	"os"
	"path/filepath"
)

// checkoutMark is a directory that checkouts of this project have.
const checkoutMark = "cmd/nsxt-cloud-controller-manager"

// Dir is the directory of what make has built: that of this program, if it holds a certain other one, else bin in the
// checkout around the working directory, built or not. Without either it is an error.
func Dir(program string) (string, error) {
	if self, err := os.Executable(); err == nil {
		dir := filepath.Dir(self)
		if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
			return dir, nil
		}
	}
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("looking for built programs: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, checkoutMark)); err == nil {
			return filepath.Join(dir, "bin"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not beside this program, and %s is in no checkout", program, start)
		}
	}
}
