package lb

import (
	"context"
	"time"
)

// tidyLater asks keepTidy to look for what went out of use. It does not block.
func (e *Engine) tidyLater() {
	select {
	case e.untidy <- struct{}{}:
	default: // it has been asked already
	}
}

// keepTidy deletes what the cluster shared in NSX and no Service uses any more, whenever something went out of use, until
// ctx ends. It begins with what an earlier run of the controller may have left. That no Service waits for it, nor fails
// with it, is why it is not part of a Service's own changes.
func (e *Engine) keepTidy(ctx context.Context) {
	b := backoff{e: e}
	for {
		var again time.Time
		under := e.watchdog.begin("deleting what no Service uses any more")
		err := e.o.Backend.Tidy(ctx)
		under.end()
		if err != nil {
			again = b.retry(err)
			failedMeanwhile(ctx, err, "Deleting what no Service uses any more failed", again)
		} else {
			b.reset()
		}
		if !e.sleep(ctx, again, e.untidy) {
			return
		}
	}
}
