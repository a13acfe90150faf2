package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strings"
)

// layer is a tar file system in the making. The first thing that fails is kept, and everything after it does nothing.
type layer struct {
	buffer bytes.Buffer
	tar    *tar.Writer
	have   map[string]bool // paths without a leading slash
	err    error
}

// add writes one entry, after the directories that hold it. What is there already stays.
func (l *layer) add(header tar.Header, content []byte) {
	if l.tar == nil {
		l.tar, l.have = tar.NewWriter(&l.buffer), map[string]bool{".": true}
	}
	if l.err != nil || l.have[header.Name] {
		return
	}
	l.directory(path.Dir(header.Name))
	l.have[header.Name] = true
	header.Size = int64(len(content))
	header.Format = tar.FormatPAX
	if l.err = errors.Join(l.err, l.tar.WriteHeader(&header)); l.err == nil {
		_, l.err = l.tar.Write(content)
	}
}

func (l *layer) directory(names ...string) {
	for _, name := range names {
		mode := int64(0o755)
		if name == "tmp" {
			mode = 0o1777
		}
		l.add(tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}, nil)
	}
}

func (l *layer) text(name, content string) {
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(content))
}

func (l *layer) link(name, target string) {
	l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777}, nil)
}

// copy adds a file of this machine as an executable.
func (l *layer) copy(name, source string) {
	if l.err != nil {
		return
	}
	content, err := os.ReadFile(source) // follows links: a library's version is part of its target's name only
	if err != nil {
		l.err = err
		return
	}
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, content)
}

// libraries finds the paths in what ldd prints: "libc.so.6 => /lib/libc.so.6 (0x7f...)", "/lib64/ld-linux-x86-64.so.2 (0x7f...)".
var libraries = regexp.MustCompile(`(?m)(?:=> |^\s*)(/\S+)`)

// program adds a program of this machine, as bin/NAME, and the libraries it needs, where the loader looks for them.
func (l *layer) program(source string) {
	if l.err != nil {
		return
	}
	l.copy("bin/"+path.Base(source), source)
	output, err := exec.Command("ldd", source).CombinedOutput()
	if err != nil && !strings.Contains(string(output), "not a dynamic executable") { // a static one needs none
		l.err = fmt.Errorf("ldd %s: %w: %s", source, err, output)
		return
	}
	if strings.Contains(string(output), "not found") {
		l.err = fmt.Errorf("%s misses libraries here: %s: %w", source, output, fs.ErrNotExist)
		return
	}
	for _, match := range libraries.FindAllStringSubmatch(string(output), -1) {
		l.copy(strings.TrimPrefix(match[1], "/"), match[1])
	}
}

// bytes is the finished tar file.
func (l *layer) bytes() ([]byte, error) {
	if l.err == nil {
		l.err = l.tar.Close()
	}
	return l.buffer.Bytes(), l.err
}
