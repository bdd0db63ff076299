@0xd2e3f4a5b6c7d809;
# net.capnp - message channels and status, for local programs on [net] socket. Served by a netd worker.
# Limits of every connection: 2 MiB a message in at most 16 segments, 1,024 calls without an answer, 1,024 live objects, no capability in
# parameters; 256 calls that wait on one object. Every object has close(); an object whose connection ends is closed.
# Refusals are data; an exception means a broken caller.

using Cxx = import "/capnp/c++.capnp";
using Admin = import "vault_admin.capnp";
$Cxx.namespace("sallyport::proto");

enum NetRefusal {
  unspecified @0;
  unknownName @1;        # no [[listen]] or [[connect]] entry of this name
  notAChannel @2;        # the [[listen]] entry has another service than "channel"
  timedOut @3;           # nothing happened in the time given
  unreachable @4;        # the host can't be reached
  handshakeFailed @5;    # the peer closed during the handshake, or isn't what the entry says: wrong key, not allowed, our own party,
                         # no server of this protocol, another mode. Another block isn't seen here: the channel breaks then, before
                         # the peer's first frame
  vaultRefused @6;       # our own vault made no vouch, or gave no keys or session of the block: status tells why
  tooBig @7;             # a message longer than 65,503 bytes; in the peer protocol, than the entry's max_frame_bytes
  closed @8;             # the object was closed before, by you; or a send after finish()
  tooManyObjects @9;     # this connection holds 1,024 objects already, or too many channels are being opened
  failed @10;            # reload or another local operation failed; `problem` says how
  shuttingDown @11;
  wrongProtocol @12;     # connectPeer, acceptPeer: the entry speaks curve_tun
  reservedCode @13;      # 0xFFFFFFFF is the protocol's own in hard mode
}

enum ChannelEnd {
  open @0;               # nothing has ended: there may be more
  ended @1;              # the peer has closed (in the peer protocol: said so, authenticated): every message it sent before
                         # was delivered
  broken @2;             # the connection failed or was cut; `reason` names the cause
}

struct Message {
  data @0 :Data;         # 0 .. 65,503 bytes; in the peer protocol one frame, sent with code 0, and received whatever its code is
}

interface Network {
  connect @0 (name :Text, timeoutMs :UInt32 = 5000) -> (outcome :ConnectOutcome);
  # Opens a channel through the [[connect]] entry `name`: dials, handshakes. Returns when the Initiate is written, as
  # curve_tun 1.0 has no acknowledgement: a refusal by the server shows as the channel's end. All of it may take
  # timeoutMs (0: no time of its own), and handshake_timeout_ms, of which the dialling dial_timeout_ms, at most.

  listen @1 (name :Text) -> (outcome :ListenOutcome);
  # Takes part in accepting the channels of the [[listen]] entry `name`, whose service is "channel". Several programs
  # may listen on one name; each channel goes to one of them.

  status @2 () -> (status :NetStatus);

  reload @3 () -> (outcome :NetReloadOutcome);
  # Makes netd read its configuration again: like SIGHUP.

  connectPeer @4 (name :Text) -> (outcome :ConnectPeerOutcome);
  # Opens a channel of the peer protocol through the [[connect]] entry `name`, whose protocol is "peer". (connect() works
  # with such an entry too: then a frame is a message.) Hard mode: returns when both preambles are there and our vault has
  # given the keys; that the peer holds the block, its first frame proves. Base mode: when the host is connected. It may take
  # as long as a connect() without a time of its own.
}

struct ConnectOutcome {
  union {
    refused @0 :NetRefusal;
    channel @1 :Channel;
  }
  reason @2 :Text;         # refused after it was dialled: the fault's name, as the log and status have it, e.g. "closed_in_handshake"
}
struct ConnectPeerOutcome {
  union {
    refused @0 :NetRefusal;
    channel @1 :PeerChannel;
  }
  reason @2 :Text;         # likewise, e.g. "same_party"
}
struct ListenOutcome {
  union {
    refused @0 :NetRefusal;
    listener @1 :Listener;
  }
}
struct NetReloadOutcome {
  union {
    refused :group {
      reason @0 :NetRefusal;
      problem @1 :Text;
    }
    done @2 :Text;             # what changed, for people
  }
}

interface Listener {
  accept @0 (timeoutMs :UInt32 = 0) -> (outcome :AcceptOutcome);
  # The next channel. 0 waits for ever. A channel handed over is not lost by a timeout of another call. `unknownName` when a
  # reload has taken the entry away, or given it another service, also while the call waits; with the entry its listeners come
  # back, so a program may call again after a pause.

  close @1 () -> ();

  acceptPeer @2 (timeoutMs :UInt32 = 0) -> (outcome :AcceptPeerOutcome);
  # The same for an entry whose protocol is "peer".
}
struct AcceptPeerOutcome {
  union {
    refused @0 :NetRefusal;
    accepted :group {
      channel @1 :PeerChannel;
      address @2 :Text;
    }
  }
}
struct AcceptOutcome {
  union {
    refused @0 :NetRefusal;
    accepted :group {
      channel @1 :Channel;
      peer @2 :Text;           # the peer's name in [peers]; empty in the peer protocol: it holds the entry's block
      peerKey @3 :Data;        # 32 bytes; all zero in the peer protocol
      address @4 :Text;        # where it connected from, "192.0.2.1:40000" or "unix:uid=1000"
    }
  }
}

interface Channel {
  send @0 (messages :List(Message)) -> (outcome :SendOutcome);
  # Queues whole messages, in order. Answers when all are taken (handed to the kernel or to a bounded queue): a slow
  # peer delays the answer. If one is too big, none is sent. Up to the RPC message limit per call; batches are fast.

  receive @1 (maxMessages :UInt32 = 1024, timeoutMs :UInt32 = 0) -> (received :Received);
  # At least one message, or the end. timeoutMs 0 waits for ever; on a timeout: no messages and `end` = open, nothing lost.
  # Messages that arrived before an end are delivered before the end is told (but `memory_limit` takes them away); also when a
  # send has failed meanwhile (the end is `broken` then). Calls are answered in order. A frame of the peer protocol that fits no
  # answer (2 MiB less 4 KiB) can't be received here: what came before it is, then the channel is broken as `frame_too_large`.
  # PeerChannel takes all that the entry allows. After your own close(): `broken`, "closed"; a call that waits then is told
  # `ended`.

  close @2 () -> ();
  # Sends what is queued, then closes. Messages not yet received are thrown away.

  finish @3 () -> (outcome :SendOutcome);
  # Only for the tunnel convention: sends the empty message that ends this direction of a stream. In the peer protocol:
  # the authenticated end of our direction; the other one goes on (base mode has none: our half of the wire is closed, which
  # the other party is told as a truncation of the whole). It goes out behind all that was sent before, also by
  # calls that still wait. A send() behind it is refused as `closed`, whether the end has left or still waits; a second
  # finish() sends nothing more.
}

interface PeerChannel {
  # The peer protocol's own interface (docs/protocol.md §13.4). Only sanctified bytes are ever given out: those of frames
  # whose tag was right. An end without the authenticated one is `broken`, as `truncated` (so is every end in base mode,
  # which has none).

  send @0 (data :Data, code :UInt32 = 0) -> (outcome :SendOutcome);
  # Any size up to the RPC message limit, split into frames of at most 64 KiB. Answers when all is handed to the kernel:
  # a peer that doesn't read delays the answer, and what it sends is received meanwhile. Calls go out in their order. No
  # data: one empty frame. A client splits a longer send into calls, of the same code.

  receive @1 (maxBytes :UInt64, timeoutMs :UInt32 = 0, continued :Bool = false) -> (received :PeerReceived);
  # Fills up to maxBytes from whole frames of one code. An answer holds at most 512 KiB, and what is there goes out at once:
  # with status `more` the client asks again for what is missing, `continued` set, with the time that is left (1, if none is);
  # all that these answers hold is the data of one receive. timeoutMs 0 waits for ever. An empty frame is given out alone. maxBytes 0 is
  # complete at once. One call at a time: a second one while it waits is a broken caller.

  finish @2 () -> (outcome :SendOutcome);
  # The authenticated end of our direction; the other one goes on. Order and refusals as in Channel.finish().

  close @3 () -> ();
  # Sends what is queued and the end, then closes. A channel whose program dies is closed without the end.
}
struct PeerReceived {
  data @0 :Data;
  code @1 :UInt32;             # of the data; without data of the frame that is empty or too big
  status :union {
    complete @2 :Void;         # all of maxBytes, or up to the last whole frame that fits and has the same code
    more @3 :Void;             # not yet: go on, continued
    slowPeer @4 :Void;         # the time is over; an unfinished frame is kept for the next call
    tooBig @5 :UInt32;         # the first frame has so many bytes, more than asked for, and this code; nothing is lost
    ended @6 :Void;            # after `data` the peer's authenticated end. Every further call says so again, also when a send
                               # has failed meanwhile
    broken @7 :Text;           # after `data` the connection failed; the drop reason's name ("closed": your own close()). Every
                               # further call says so again
  }
}
struct SendOutcome {
  union {
    refused @0 :NetRefusal;
    broken @1 :Text;           # the channel is broken; the drop reason's name, or "ended": the connection is over without one
    sent @2 :Void;
  }
}
struct Received {
  messages @0 :List(Message);
  end @1 :ChannelEnd;
  reason @2 :Text;             # the drop reason's name when `end` is broken
  underWay @3 :UInt32;         # bytes that have arrived of a message behind these that isn't whole yet, with what is around
                               # it on the wire; 0: none. Between two answers they grow when the peer is slow, and don't
                               # when it has stopped.
}

struct NetStatus {
  version @0 :Text;
  monitor @1 :ProcessStatus;
  workers @2 :List(ProcessStatus);
  entries @3 :List(EntryStatus);
  limits @4 :List(Admin.Counter);
  counters @5 :List(Admin.Counter);   # sums over the workers
  drops @6 :List(Admin.Counter);      # by drop reason, sums over the workers
  vault @7 :Text;                     # "connected", or why not
  draining @8 :Bool;
}
struct ProcessStatus {
  pid @0 :UInt32;
  uptimeSeconds @1 :UInt64;
  restarts @2 :UInt32;
  sandbox @3 :List(Admin.SandboxLayer);
  sandboxVerdict @4 :Text;
  counters @5 :List(Admin.Counter);
}
struct EntryStatus {
  name @0 :Text;
  direction @1 :Text;          # "listen" or "connect"
  address @2 :Text;
  problem @3 :Text;            # empty, or why it doesn't work
  key @4 :Text;                # name of our own key
  accepted @5 :UInt64;         # connections taken from its listener, since netd's start
  handshakes @6 :UInt64;       # finished
  drops @7 :UInt64;            # for whatever reason
  refusedKey @8 :Data;         # empty, or the last peer that proved to hold this key and isn't allowed
  refusedSecondsAgo @9 :UInt64;
  protocol @10 :Text;          # "curve", "peer hard" or "peer base"; empty from a netd that doesn't tell
}
