package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/config"
)

// errNoCredentials: a source holds no user name or no password. The text names the source, never what it holds.
var errNoCredentials = errors.New("no user name or no password")

// credentials reads a user name and a password from where the config says. They are read again at every log-in, so that
// a rotated password is taken up without a restart.
func (c *Cloud) credentials(ctx context.Context, from config.Credentials) (user, password string, err error) {
	var source string
	switch {
	case from.File != "":
		source = "file " + from.File
		user, password, err = fromFile(from.File)
	case from.Env != nil:
		source = fmt.Sprintf("environment variables %s and %s", from.Env.Username, from.Env.Password)
		user, password = os.Getenv(from.Env.Username), os.Getenv(from.Env.Password)
	case from.Secret != nil:
		source = fmt.Sprintf("Secret %s/%s", from.Secret.Namespace, from.Secret.Name)
		user, password, err = c.fromSecret(ctx, *from.Secret)
	}
	if err == nil && (user == "" || password == "") {
		err = errNoCredentials
	}
	if err != nil {
		return "", "", fmt.Errorf("credentials from %s: %w", source, err)
	}
	return user, password, nil
}

func fromFile(path string) (user, password string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	var f struct {
		Username string `json:"username"`
		Password string `json:"password"`
	}
	if yaml.UnmarshalStrict(b, &f) != nil {
		// The parser's own error would quote what it read.
		return "", "", errors.New("not YAML with the keys username and password alone")
	}
	return f.Username, f.Password, nil
}

func (c *Cloud) fromSecret(ctx context.Context, ref config.SecretReference) (user, password string, err error) {
	client := c.client.Load()
	if client == nil {
		return "", "", errors.New("the API server is not known yet")
	}
	secret, err := (*client).CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return "", "", err
	}
	return string(secret.Data["username"]), string(secret.Data["password"]), nil
}
