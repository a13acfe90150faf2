package vcenter

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vim25/types"
	"k8s.io/utils/clock"
)

// refusalPause is how long credentials that vCenter refused are not tried again. By default vCenter locks an account
// for five minutes after five failures within three, and a locked account stays so if the attempts go on.
const refusalPause = time.Minute

// login reads the credentials and logs in with them, but does not repeat what vCenter has just refused.
type login struct {
	credentials func(context.Context) (user, password string, err error)
	clock       clock.PassiveClock

	mu      sync.Mutex
	refused struct {
		user, password string
		at             time.Time
		err            error
	}
}

// do calls f, which logs in. Its error matches ErrLoginRefused if vCenter does not accept the credentials.
func (l *login) do(ctx context.Context, f func(*url.Userinfo) error) error {
	user, password, err := l.credentials(ctx)
	if err != nil {
		return fmt.Errorf("read the credentials: %w", err)
	}
	l.mu.Lock()
	refused := l.refused
	l.mu.Unlock()
	if refused.err != nil && refused.user == user && refused.password == password && l.clock.Since(refused.at) < refusalPause {
		return fmt.Errorf("%w (not tried again with the same password for %v, lest the account be locked)", refused.err, refusalPause)
	}
	err = f(url.UserPassword(user, password))
	if err == nil {
		return nil
	}
	if !fault.Is(err, &types.InvalidLogin{}) && !rest.IsStatusError(err, http.StatusUnauthorized) {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	err = fmt.Errorf("%w for user %s: %w", ErrLoginRefused, user, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused.user, l.refused.password, l.refused.at, l.refused.err = user, password, l.clock.Now(), err
	return err
}
