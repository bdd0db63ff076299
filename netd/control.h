// control.h - the records between the netd monitor and a worker. Part of: netd (both sides).
// One SOCK_SEQPACKET socketpair a worker; each datagram is a ControlRecord, then for some kinds a payload and
// descriptors. What a worker may ask is this table and nothing more: a taken-over worker can name configured targets by
// number, not addresses.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <vector>

#include <kj/io.h>

#include "common/bytes.h"
#include "common/event_loop.h"
#include "common/fd_passing.h"

namespace sallyport::netd {

enum class ControlKind : uint32_t {
  // monitor to worker
  Stats = 1,        // descriptors: the stats pages of all workers, in order (worker 0 only)
  Config,           // descriptor: sealed memfd with a WorkerConfig (proto/netd_control.capnp)
  WireListener,     // target: id of a [[listen]] entry; descriptor: its listening socket
  PlainListener,    // target: id of a [[connect]] entry; descriptor
  RemoveListener,   // target: id of an entry whose listener is to be closed
  NetListener,      // descriptor: the listening socket of [net] socket (worker 0 only)
  MetricsListener,  // descriptor (worker 0 only)
  VaultLink,        // descriptor: connected to the vault's net socket
  CookieKey,        // payload: 32 bytes, the new minute key
  Dialed,           // request: the worker's number; descriptor: a socket that is connecting or connected; value: 1 when
                    // the entry's last dial failed: then how this one ends is to be told, however it ends
  DialFailed,       // request; value: errno, or 0 when the target has no (more) addresses
  StatusReport,     // request; descriptor: sealed memfd with a StatusReport
  ReloadDone,       // request; value: 1 done, 0 refused; payload: text for people
  Drain,            // finish what is under way, take nothing new
  Caller,           // target: as in WhoCalls; value: the uid of who called; descriptor: what WhoCalls sent
  // worker to monitor
  Ready = 64,     // payload: the sandbox report, one "name\tstate\tdetail\n" a layer; verdict as layer "verdict"
  Dial,           // request; target: id of an entry; value: how many addresses of it were tried before
  VaultLost,      // the vault's connection ended: another, please
  StatusRequest,  // request (worker 0 only)
  ReloadRequest,  // request (worker 0 only)
  Drained,        // nothing is left: the worker is about to exit
  DialOutcome,    // target: id of an entry; value: errno of a dial that ended in no connection, or 0: one that did
  WhoCalls,       // target: id of a [[listen]] entry, or NET_SOCKET; descriptor: accepted there, comes back as Caller
};

inline constexpr uint32_t NET_SOCKET = 0;  // as a target; ids of entries begin at 1

struct ControlRecord {
  ControlKind kind{};
  uint32_t target = 0;
  uint64_t request = 0;
  uint64_t value = 0;
};
static_assert(sizeof(ControlRecord) == 24);

inline constexpr size_t MAX_CONTROL_BYTES = 16 * 1024;

// The inherited descriptors of a worker.
inline constexpr int WORKER_CONTROL_FD = 3;
inline constexpr int WORKER_STATS_FD = 4;

// One end of the socketpair: records that don't fit now wait in order.
class ControlChannel final : EventLoop::Watcher {
 public:
  struct Received {
    ControlRecord record;
    ByteSpan payload;                // valid during the call
    std::span<kj::AutoCloseFd> fds;  // take what is wanted; the rest is closed
  };
  using OnRecord = std::function<void(Received&)>;

  // Takes over `fd`. `onGone` is called once when the other side is gone, or sent what is no record, or doesn't read
  // any more.
  // `maxWaiting`: so many records may wait before the other side counts as gone.
  ControlChannel(EventLoop& loop, int fd, size_t maxWaiting, OnRecord onRecord, std::function<void()> onGone);
  ~ControlChannel();

  void send(const ControlRecord& record, ByteSpan payload = {}, std::vector<kj::AutoCloseFd> fds = {});
  // Tries to hand over what waits, at once: before an exit.
  void flush();
  // No record is told any more, not even one that has arrived; what waits is thrown away.
  void silence();

 private:
  struct Waiting {
    std::vector<std::byte> bytes;
    std::vector<kj::AutoCloseFd> fds;
  };
  void onEvents(uint32_t events) override;
  bool trySend(const Waiting& item);
  void gone();

  EventLoop& loop_;
  int fd_;
  size_t maxWaiting_;
  OnRecord onRecord_;
  std::function<void()> onGone_;
  std::deque<Waiting> waiting_;
  bool wantsWrite_ = false;
  bool gone_ = false;
};

}  // namespace sallyport::netd
