package keeper

import "golang.org/x/sys/unix"

// Small files of the kernel's, read and written without package os: that would
// set the runtime's poller up, which no keeper needs.

// readFileAt gives the first page of a file below a folder, nil if it cannot be read.
func readFileAt(folder int, path string) []byte {
	fd, err := unix.Openat(folder, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	b := make([]byte, 4096)
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, b) })
	if err != nil {
		return nil
	}
	return b[:n]
}

func writeFile(path string, b []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, b)
	return err
}
