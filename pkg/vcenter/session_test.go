package vcenter_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/cloud-provider-nsxt/cloud-provider-nsxt/pkg/vcenter"
)

// together calls f from several goroutines at once.
func together(n int, f func()) {
	var callers sync.WaitGroup
	for range n {
		callers.Go(f)
	}
	callers.Wait()
}

func TestCallersShareOneSession(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	look := func() {
		vm, err := client.ByUUID(t.Context(), node1)
		if err == nil {
			_, err = client.Locate(t.Context(), vm)
		}
		if err != nil {
			t.Error(err)
		}
	}
	together(10, look)
	if sdk, rest := f.count("Login"), f.count("POST /rest/com/vmware/cis/session"); sdk != 1 || rest != 1 {
		t.Errorf("%d log-ins to the SDK and %d to the tag service, want 1 and 1", sdk, rest)
	}
	if err := f.TerminateSessions(); err != nil {
		t.Fatal(err)
	}
	together(10, look)
	if sdk := f.count("Login"); sdk != 2 {
		t.Errorf("%d log-ins after the session was ended, want 2", sdk)
	}
}

func TestASessionIsReplacedInTheMiddleOfACall(t *testing.T) {
	for _, during := range []string{"FindAllByUuid", "RetrieveProperties"} {
		f := newFront(t, twoDatacenters(t))
		client := clientOf(t, f)
		if _, err := client.ByUUID(t.Context(), node2); err != nil {
			t.Fatal(err)
		}
		var once sync.Once
		f.setDisturb(func(call string, _ http.ResponseWriter, _ *http.Request) bool {
			if strings.HasPrefix(call, during) {
				once.Do(func() {
					if err := f.TerminateSessions(); err != nil {
						t.Error(err)
					}
				})
			}
			return false
		})
		if vm, err := client.ByUUID(t.Context(), node1); err != nil || vm.Name != "node-1" {
			t.Errorf("session ended before %s: %s, %v", during, vm.Name, err)
		}
	}
}

func TestAPasswordIsRotated(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	user, password := f.Credentials()
	opts.Servers[0].Credentials = func(context.Context) (string, string, error) { return user, password, nil }
	client := newClient(t, opts)
	if _, err := client.ByUUID(t.Context(), node1); err != nil {
		t.Fatal(err)
	}

	f.SetCredentials(user, "new")
	if _, err := client.ByUUID(t.Context(), node1); err != nil {
		t.Errorf("the session goes on: %v", err)
	}
	if err := f.TerminateSessions(); err != nil {
		t.Fatal(err)
	}
	_, err := client.ByUUID(t.Context(), node1)
	notProven(t, err)
	if !errors.Is(err, vcenter.ErrLoginRefused) {
		t.Errorf("with the old password: %v, want ErrLoginRefused", err)
	}
	password = "new"
	if _, err := client.ByUUID(t.Context(), node1); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

func TestARefusedPasswordIsNotTriedUntilTheAccountIsLocked(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	opts := optionsOf(f)
	now := clocktesting.NewFakePassiveClock(time.Unix(1_000_000, 0))
	opts.Clock = now
	opts.Servers[0].Credentials = func(context.Context) (string, string, error) { return "someone", "S3cret", nil }
	client := newClient(t, opts)
	for minute, want := range []int{1, 2, 3} {
		for range 5 {
			_, err := client.ByUUID(t.Context(), node1)
			notProven(t, err, "someone")
			if !errors.Is(err, vcenter.ErrLoginRefused) {
				t.Fatalf("got %v, want ErrLoginRefused", err)
			}
			if strings.Contains(err.Error(), "S3cret") {
				t.Fatalf("error %q shows the password", err)
			}
		}
		if got := f.count("Login"); got != want {
			t.Errorf("%d log-ins after %d minutes, want %d", got, minute, want)
		}
		now.SetTime(now.Now().Add(time.Minute))
	}
}

func TestCredentialsThatCannotBeReadAreAnError(t *testing.T) {
	opts := optionsOf(newFront(t, twoDatacenters(t)))
	missing := errors.New("secret not found")
	opts.Servers[0].Credentials = func(context.Context) (string, string, error) { return "", "", missing }
	_, err := newClient(t, opts).ByUUID(t.Context(), node1)
	notProven(t, err)
	if !errors.Is(err, missing) {
		t.Errorf("got %v, want it to wrap %v", err, missing)
	}
}

func TestACallerDoesNotWaitForAnothersLogin(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	inLogin := make(chan struct{})
	release := make(chan struct{})
	f.setDisturb(func(call string, _ http.ResponseWriter, _ *http.Request) bool {
		if call == "Login" {
			close(inLogin)
			<-release
		}
		return false
	})
	opts := optionsOf(f)
	opts.Timeout = time.Hour
	client := newClient(t, opts)
	var first sync.WaitGroup
	first.Go(func() {
		if _, err := client.ByUUID(t.Context(), node1); err != nil {
			t.Error(err)
		}
	})
	<-inLogin
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.ByUUID(ctx, node2); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	close(release)
	first.Wait()
}

func TestCloseLogsOut(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	vm, err := client.ByUUID(t.Context(), node1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Locate(t.Context(), vm); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if sdk, rest := f.count("Logout"), f.count("DELETE /rest/com/vmware/cis/session"); sdk != 1 || rest != 1 {
		t.Errorf("%d log-outs of the SDK and %d of the tag service, want 1 and 1", sdk, rest)
	}
	if _, err := client.ByUUID(t.Context(), node1); !errors.Is(err, vcenter.ErrClosed) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
}

func TestCloseOfAnExpiredSession(t *testing.T) {
	f := newFront(t, twoDatacenters(t))
	client := clientOf(t, f)
	if _, err := client.ByUUID(t.Context(), node1); err != nil {
		t.Fatal(err)
	}
	if err := f.TerminateSessions(); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
