// peer.ts - channels of the peer protocol, through this host's netd. Part of: @sallyport/client. The contract:
// docs/protocol.md §13.4 and PeerChannel of proto/net.capnp. Each object has a connection of its own, which ends with it.
// What must never happen here: bytes of two codes in one answer, or an end that netd didn't tell.
import { checkedBytes, checkedNumber, checkedPatience, checkedText, checkedTime } from "./arguments.js";
import { Connection, bytesOf } from "./connection.js";
import { SallyportError, netRefusalOf } from "./errors.js";
import { type Listener$Client, type PeerChannel$Client, type SendOutcome } from "./schema/net.js";
import { DEFAULT_TIMEOUT_MS, type Options } from "./vault.js";

/**
 * complete: all that was asked for, or all whole frames of one code that fit. slowPeer: the time is over; what half a frame
 * there is stays for the next call. tooBig: the first frame is larger than what was asked for (`needed`), nothing is lost.
 * ended: the peer's authenticated end, after `data`. broken: after `data` the connection failed; `reason` says why.
 */
export type PeerStatus = "complete" | "slowPeer" | "tooBig" | "ended" | "broken";
export interface PeerReceived {
  /** All of it genuine, whatever the status is. */
  data: Uint8Array;
  /** The sender's, of the data. */
  code: number;
  status: PeerStatus;
  /** With tooBig: how many bytes the frame has; else 0. */
  needed: number;
  /** With broken: the drop reason's name; else empty. */
  reason: string;
}

const SEND_BYTES = 512 * 1024; // in one call
const SENDS_AHEAD = 4;

/**
 * A channel through the [[connect]] entry `name` of the netd behind a socket. Rejects with timedOut when netd has none
 * after `timeoutMs`: when the peer is slow, too.
 */
export async function connectPeer(path: string, name: string, options: Options = {}): Promise<PeerChannel> {
  checkedText(name, "name");
  const connection = await Connection.open(path, patience(options));
  try {
    const { outcome } = await connection.answer(() => connection.network.connectPeer((params) => void (params.name = name)));
    if (outcome._isRefused) throw netRefusalOf(outcome.refused, name);
    return new PeerChannel(connection, outcome.channel, "");
  } catch (error) {
    connection.transport.finish(new SallyportError("closed"));
    throw error;
  }
}

/** Takes part in accepting the channels of the [[listen]] entry `name`. */
export async function listenPeer(path: string, name: string, options: Options = {}): Promise<PeerListener> {
  const listener = new PeerListener(path, checkedText(name, "name"), patience(options));
  await listener.begin();
  return listener;
}

export class PeerListener {
  #path: string;
  #timeoutMs: number;
  #next: { connection: Connection; client: Listener$Client } | undefined;
  #accepting = false;
  #closed = false;

  /** Use listenPeer(). */
  constructor(path: string, readonly name: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  /** Not for programs: the connection on which the next channel is waited for. */
  async begin(): Promise<{ connection: Connection; client: Listener$Client }> {
    if (this.#closed) throw new SallyportError("closed");
    if (this.#next?.connection.alive) return this.#next;
    const connection = await Connection.open(this.#path, this.#timeoutMs);
    try {
      const { outcome } = await connection.answer(() => connection.network.listen((params) => void (params.name = this.name)));
      if (outcome._isRefused) throw netRefusalOf(outcome.refused, this.name);
      if (this.#closed) throw new SallyportError("closed");
      return (this.#next = { connection, client: outcome.listener });
    } catch (error) {
      connection.transport.finish(new SallyportError("closed"));
      throw error;
    }
  }

  /** The next channel. `timeoutMs` 0 waits for ever, else netTimedOut. One caller at a time. */
  async accept(timeoutMs = 0): Promise<PeerChannel> {
    const time = checkedTime(timeoutMs);
    if (this.#accepting) throw new SallyportError("badArgument", "one accept at a time");
    this.#accepting = true;
    try {
      const { connection, client } = await this.begin();
      const { outcome } = await connection.answer(
        () => client.acceptPeer((params) => void (params.timeoutMs = time)),
        time === 0 ? Infinity : time,
      );
      if (outcome._isRefused) throw netRefusalOf(outcome.refused, this.name);
      const { channel, address } = outcome.accepted;
      // The channel keeps this connection, and its listener takes no more: the next channel gets one of its own.
      this.#next = undefined;
      connection.release(client);
      return new PeerChannel(connection, channel, address);
    } catch (error) {
      if (this.#closed) throw new SallyportError("closed");
      throw error;
    } finally {
      this.#accepting = false;
    }
  }

  /** Channels that come from now on go to others. */
  close(): void {
    this.#closed = true;
    this.#next?.connection.transport.finish(new SallyportError("closed"));
    this.#next = undefined;
  }
}

/** One send and one receive at a time. A channel that isn't closed gets no end: the peer sees it broken. */
export class PeerChannel {
  #connection: Connection;
  #client: PeerChannel$Client;
  #sending = false;
  #receiving = false;
  #closed = false;

  /** Use connectPeer() or PeerListener.accept(). `address` is where the peer connected from; empty if we did. */
  constructor(connection: Connection, client: PeerChannel$Client, readonly address: string) {
    this.#connection = connection;
    this.#client = client;
  }

  /**
   * Any size, in frames of one code; nothing is one empty frame. Resolves when netd has taken all of it: when the peer
   * reads. What the peer sends meanwhile is read ahead, up to `max_frame_bytes` and at least 1 MiB; if both sides send
   * more, and receive nothing meanwhile, both wait without end. Rejects with `broken`, netReservedCode, or netClosed
   * after finish().
   */
  async send(data: Uint8Array, code = 0): Promise<void> {
    checkedNumber(code, 0xffff_ffff, "code");
    checkedBytes(data, "data");
    await this.#alone("send", async () => {
      const failures: SallyportError[] = [];
      let at = 0;
      const sendSome = async (): Promise<void> => {
        while (failures.length === 0 && (at < data.length || at === 0)) {
          const part = data.subarray(at, at + SEND_BYTES);
          at += Math.max(part.length, 1);
          const { outcome } = await this.#connection.answer(
            () =>
              this.#client.send((params) => {
                params._initData(part.length).copyBuffer(part);
                params.code = code;
              }),
            Infinity, // a slow peer delays the answer
          );
          const failure = failureOf(outcome);
          if (failure) failures.push(failure);
        }
      };
      // Some ahead of their answers: calls of one channel are carried out in order.
      await Promise.all(Array.from({ length: Math.min(SENDS_AHEAD, Math.ceil(data.length / SEND_BYTES) || 1) }, sendSome));
      if (failures[0]) throw failures[0];
    });
  }

  /** Up to `size` bytes from whole frames of one code. `timeoutMs` 0 waits for ever. */
  async receive(size: number, timeoutMs = 0): Promise<PeerReceived> {
    checkedNumber(size, Number.MAX_SAFE_INTEGER, "size");
    const time = checkedTime(timeoutMs);
    return this.#alone("receive", async () => {
      const deadline = performance.now() + time;
      const parts: Uint8Array[] = [];
      const received: PeerReceived = { data: new Uint8Array(), code: 0, status: "complete", needed: 0, reason: "" };
      let bytes = 0;
      for (let more = true, continued = false; more; continued = true) {
        // Nought means for ever: at the very end a moment is left, so that what is there already is still given out.
        const left = time === 0 ? 0 : Math.max(1, Math.ceil(deadline - performance.now()));
        const answer = await this.#connection.answer(
          () =>
            this.#client.receive((params) => {
              params.maxBytes = BigInt(size - bytes);
              params.timeoutMs = left;
              params.continued = continued;
            }),
          time === 0 ? Infinity : left,
        );
        const { data, code, status } = answer.received;
        if (data.length > size - bytes) throw new SallyportError("protocolError");
        if (!continued || data.length > 0) received.code = code;
        if (data.length > 0) parts.push(bytesOf(data, true));
        bytes += data.length;
        more = status._isMore;
        if (status._isSlowPeer) received.status = "slowPeer";
        if (status._isEnded) received.status = "ended";
        if (status._isTooBig) [received.status, received.needed] = ["tooBig", status.tooBig];
        if (status._isBroken) [received.status, received.reason] = ["broken", status.broken];
      }
      received.data = parts.length === 1 ? parts[0]! : joined(parts, bytes);
      return received;
    });
  }

  /** Our direction's authenticated end; receiving goes on. */
  async finish(): Promise<void> {
    await this.#alone("send", async () => {
      const { outcome } = await this.#connection.answer(() => this.#client.finish(), Infinity);
      const failure = failureOf(outcome);
      if (failure) throw failure;
    });
  }

  /** Sends what is queued and the end, then closes. A second time: nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#connection.answer(() => this.#client.close());
    } catch {
      // The connection has ended, and the channel with it.
    }
    this.#connection.transport.finish(new SallyportError("closed"));
  }

  /** Closes without an end. */
  abandon(): void {
    this.#closed = true;
    this.#connection.transport.finish(new SallyportError("closed"));
  }

  async #alone<T>(what: "send" | "receive", work: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new SallyportError("closed");
    if (what === "send" ? this.#sending : this.#receiving) throw new SallyportError("badArgument", `one ${what} at a time`);
    const mark = (busy: boolean) => void (what === "send" ? (this.#sending = busy) : (this.#receiving = busy));
    mark(true);
    try {
      return await work();
    } finally {
      mark(false);
    }
  }
}

// --- values ---

function failureOf(outcome: SendOutcome): SallyportError | undefined {
  if (outcome._isRefused) return netRefusalOf(outcome.refused);
  return outcome._isBroken ? new SallyportError("broken", outcome.broken) : undefined;
}

function joined(parts: Uint8Array[], bytes: number): Uint8Array {
  const all = new Uint8Array(bytes);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
    part.fill(0);
  }
  return all;
}

function patience(options: Options): number {
  return checkedPatience(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
}
