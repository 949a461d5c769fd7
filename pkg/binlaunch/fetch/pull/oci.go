package pull

import (
	"errors"
)

func (b *body) openOCI(string) error {
	return fault{Refused, errors.New("OCI artifacts are not fetched")}
}
