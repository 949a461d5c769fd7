package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is an unpacked linux-image package of Debian.
type kernel struct {
	image   string            // vmlinuz
	modules map[string]string // files of modules by name
	builtin map[string]bool
}

// openKernel reads what the package below dir has. The package comes without
// modules.dep, which depmod makes when it is installed.
func openKernel(dir string) (*kernel, error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil {
		return nil, fmt.Errorf("cannot look for a kernel: %w", err)
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("cannot choose a kernel: %s has %v", dir, images)
	}
	k := &kernel{image: images[0], modules: map[string]string{}, builtin: map[string]bool{}}
	release := strings.TrimPrefix(filepath.Base(k.image), "vmlinuz-")
	lib := filepath.Join(dir, "lib/modules", release)
	err = filepath.WalkDir(filepath.Join(lib, "kernel"), func(file string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(file), ".ko"); ok {
			k.modules[moduleName(name)] = file
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the kernel's modules: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(lib, "modules.builtin"))
	if err != nil {
		return nil, fmt.Errorf("cannot read which modules are built in: %w", err)
	}
	for file := range strings.FieldsSeq(string(data)) {
		k.builtin[moduleName(strings.TrimSuffix(filepath.Base(file), ".ko"))] = true
	}
	return k, nil
}

// moduleName is a module's name as the kernel has it: the names of files have
// dashes too.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// order returns the files of the named modules and of all that they need, each
// after those it needs.
func (k *kernel) order(names []string) ([]string, error) {
	var files []string
	seen := map[string]bool{}
	var add func(name, neededBy string) error
	add = func(name, neededBy string) error {
		name = moduleName(name)
		if seen[name] || k.builtin[name] {
			return nil
		}
		seen[name] = true
		file, ok := k.modules[name]
		if !ok {
			return fmt.Errorf("cannot load the module %s%s: %s has none", name, neededBy, filepath.Base(k.image))
		}
		needs, wishes, err := moduleNeeds(file)
		if err != nil {
			return err
		}
		// A wish may be an alias that only modprobe can resolve.
		needs = append(needs, slices.DeleteFunc(wishes, func(w string) bool { return k.modules[moduleName(w)] == "" })...)
		for _, n := range needs {
			if err := add(n, ", which "+name+" needs"); err != nil {
				return err
			}
		}
		files = append(files, file)
		return nil
	}
	for _, name := range names {
		if err := add(name, ""); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// moduleNeeds reads the modules that one cannot be loaded without, and those
// that it wishes to have loaded before it.
func moduleNeeds(file string) (needs, wishes []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the module %s: %w", file, err)
	}
	defer f.Close()
	info := f.Section(".modinfo")
	if info == nil {
		return nil, nil, fmt.Errorf("cannot read the module %s: it has no .modinfo", file)
	}
	data, err := info.Data()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the module %s: %w", file, err)
	}
	needs, wishes = parseModinfo(data)
	return needs, wishes, nil
}

func parseModinfo(data []byte) (needs, wishes []string) {
	for field := range bytes.SplitSeq(data, []byte{0}) {
		key, value, _ := strings.Cut(string(field), "=")
		if key == "depends" && value != "" {
			needs = append(needs, strings.Split(value, ",")...)
		}
		if before, ok := strings.CutPrefix(value, "pre:"); ok && key == "softdep" {
			before, _, _ = strings.Cut(before, "post:")
			wishes = append(wishes, strings.Fields(before)...)
		}
	}
	return needs, wishes
}
