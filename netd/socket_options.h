// socket_options.h - options of the sockets that a worker uses. Part of: netd-worker (edge).
#pragma once

#include <sys/socket.h>

#include "netd/entries.h"

namespace sallyport::netd {

// TCP_NODELAY on all four sockets of a tunnel: without it a request of two writes costs 40 ms. Nothing for Unix
// sockets.
void setNoDelay(int fd);
// Keepalive: an idle session of a dead peer ends.
void setLiveness(int fd, const WorkerLimits& limits);
// The same for all that will connect to a listener, which inherit it (Linux): so no accepted connection pays for it. Of
// the encrypted side (`wire`) setLiveness() too. Nothing here may be vital: who has connected before has other options.
void setForAccepted(int listener, bool wire, const WorkerLimits& limits);
// What the kernel knows of the peer. (TCP_USER_TIMEOUT isn't used: it ends the session of a peer that lives, but reads
// nothing for so long.)
struct Hearing {
  bool asked = false;     // bytes or window probes were sent again, and nothing was acknowledged since
  uint32_t silentMs = 0;  // since the last acknowledgement of anything
};
// Never asked and not silent where there is no TCP.
Hearing hearingOf(int fd);
// From here on a close, also the one of a killed process, is a reset for the program at the other end (TCP; a Unix
// socket has no such thing). setGentleClose() takes it back.
void setAbruptClose(int fd);
void setGentleClose(int fd);
// Closes so that the program at the other end sees a reset, not an end of file (TCP; a Unix socket has no such thing).
void closeWithReset(int fd);

}  // namespace sallyport::netd
