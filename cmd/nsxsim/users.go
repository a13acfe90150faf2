package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/nsxsim"
)

// user is an entry of the file of --users; see nsxsim.User.
type user struct {
	Name        string `json:"name"`
	Password    string `json:"password,omitempty"`
	Certificate string `json:"certificate,omitempty"` // PEM
	Token       string `json:"token,omitempty"`
	Remote      bool   `json:"remote,omitempty"`
	ReadOnly    bool   `json:"readOnly,omitempty"`
	Principal   bool   `json:"principal,omitempty"`
}

// readUsers reads the file of --users, YAML or JSON: a list of users.
func readUsers(path string) ([]nsxsim.User, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--users: %w", err)
	}
	var listed []user
	if err := yaml.UnmarshalStrict(text, &listed); err != nil {
		return nil, fmt.Errorf("--users: %s: %w", path, err)
	}
	var users []nsxsim.User
	for i, u := range listed {
		if u.Name == "" {
			return nil, fmt.Errorf("--users: %s: user %d has no name", path, i+1)
		}
		certificate := bytes.TrimSpace([]byte(u.Certificate))
		if block, _ := pem.Decode(certificate); block == nil && len(certificate) > 0 {
			return nil, fmt.Errorf("--users: %s: the certificate of user %s is not PEM", path, u.Name)
		}
		users = append(users, nsxsim.User{Name: u.Name, Password: u.Password, Certificate: certificate, Token: u.Token,
			Remote: u.Remote, ReadOnly: u.ReadOnly, Principal: u.Principal})
	}
	return users, nil
}
