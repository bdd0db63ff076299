@0xe3f4a5b6c7d8e90a;
# netd_control.capnp - what the netd monitor tells its workers: data only, in a sealed memfd, one way (monitor to worker).
# Internal to netd: no program may rely on it. What a worker asks of the monitor are fixed-size records, netd/control.h.

using Cxx = import "/capnp/c++.capnp";
using Admin = import "vault_admin.capnp";
$Cxx.namespace("sallyport::proto");

struct WorkerConfig {
  generation @0 :UInt64;               # grows by one with each reload
  listens @1 :List(WorkerListen);
  connects @2 :List(WorkerConnect);
  limits @3 :WorkerLimits;
  peers @4 :List(WorkerPeer);
}
struct WorkerPeer {
  name @0 :Text;
  key @1 :Data;                        # 32 bytes
}
struct WorkerListen {
  name @0 :Text;
  id @1 :UInt32;                       # stable over reloads while the entry keeps its address
  service @2 :Service;
  allow @3 :List(UInt32);              # indices into peers
  vaultKey @4 :Text;                   # name of the entry's key
  peer @5 :PeerFraming;                # null: the entry speaks curve_tun
}
struct PeerFraming {
  # An entry that speaks the peer protocol.
  base @0 :Bool;                       # else hard mode
  maxFrameBytes @1 :UInt32;
  rotateFrames @2 :UInt32;             # 0: no rotation (base mode)
}
enum Service {
  target @0;                           # dial the configured target through the monitor
  channel @1;
  echo @2;
}
struct WorkerConnect {
  name @0 :Text;
  id @1 :UInt32;
  serverKey @2 :Data;                  # 32 bytes
  vaultKey @3 :Text;
  peer @4 :PeerFraming;                # as in WorkerListen; then there is no serverKey
}
struct WorkerLimits {
  halfOpen @0 :UInt32;
  connections @1 :UInt32;
  halfOpenPerSource @2 :UInt32;
  connectionsPerSource @3 :UInt32;
  handshakeTimeoutMs @4 :UInt32;
  dialTimeoutMs @5 :UInt32;
  idleTimeoutMs @6 :UInt32;            # 0: none
  acceptTimeoutMs @7 :UInt32;          # how long a channel waits for a local program
  bufferBytes @8 :UInt64;              # all buffers of this worker
  drainTimeoutMs @9 :UInt32;
  keepaliveS @10 :UInt32;
  userTimeoutMs @11 :UInt32;
}

struct StatusReport {
  # Monitor to the worker that serves [net] socket, on its request.
  monitor @0 :MonitorProcess;
  workers @1 :List(MonitorProcess);
  entries @2 :List(MonitorEntry);
  limits @3 :List(Admin.Counter);
  vault @4 :Text;
  draining @5 :Bool;
}
struct MonitorProcess {
  pid @0 :UInt32;
  startedAt @1 :UInt64;                # monotonic seconds
  restarts @2 :UInt32;
  sandbox @3 :List(Admin.SandboxLayer);
  sandboxVerdict @4 :Text;
}
struct MonitorEntry {
  name @0 :Text;
  direction @1 :Text;
  address @2 :Text;
  problem @3 :Text;
  id @4 :UInt32;                       # as in WorkerListen and WorkerConnect
  key @5 :Text;
  protocol @6 :Text;
}
