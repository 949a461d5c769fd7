package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ship puts a program of the host into the archive under the given path, with
// the libraries it is linked to under their own.
func (a *archive) ship(ctx context.Context, name, file string) error {
	return a.shipFrom(ctx, "", name, file)
}

// shipFrom does so with a program of packages that were unpacked below root,
// and with the libraries that are there.
func (a *archive) shipFrom(ctx context.Context, root, name, file string) error {
	if err := a.file(name, file); err != nil {
		return err
	}
	libs, err := libraries(ctx, file, libraryFolders(root)...)
	if err != nil {
		return err
	}
	for _, lib := range libs {
		place := lib
		if root != "" {
			place = strings.TrimPrefix(lib, root)
		}
		if err := a.file(place, lib); err != nil {
			return err
		}
	}
	return nil
}

// libraryFolders are where Debian's packages below root have libraries.
func libraryFolders(root string) (all []string) {
	if root == "" {
		return nil
	}
	for _, dir := range []string{"lib", "usr/lib"} {
		for _, below := range []string{"", "systemd"} {
			all = append(all, filepath.Join(root, dir, "x86_64-linux-gnu", below))
		}
	}
	return all
}

// libraries lists what a program needs to be started, with its interpreter;
// those in the given folders come before the host's.
func libraries(ctx context.Context, file string, folders ...string) ([]string, error) {
	static, err := isStatic(file)
	if err != nil || static {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "ldd", file)
	if len(folders) > 0 {
		cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(folders, ":"))
	}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the libraries of %s: %w", file, err)
	}
	return parseLdd(string(out))
}

// isStatic tells whether a file runs without an interpreter; a script and any
// other file that is no ELF counts as such.
func isStatic(file string) (bool, error) {
	f, err := elf.Open(file)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot read %s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false, nil
		}
	}
	return true, nil
}

// parseLdd reads lines such as
//
//	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f…)
//	/lib64/ld-linux-x86-64.so.2 (0x00007f…)
func parseLdd(out string) ([]string, error) {
	var libs []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "not found") {
			return nil, fmt.Errorf("cannot find a library: %s", strings.TrimSpace(line))
		}
		for word := range strings.FieldsSeq(line) {
			if filepath.IsAbs(word) {
				libs = append(libs, word)
			}
		}
	}
	return libs, nil
}
