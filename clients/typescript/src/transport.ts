// transport.ts - Cap'n Proto messages over a Unix socket, bounded, for capnp-es. Part of: @sallyport/client.
// capnp-es' own DeferredTransport drops a message that arrives while none is awaited, and nothing in it tells a
// connection's end to the calls that wait: this queue does the one, `ended` the other.
import { Socket, connect as connectSocket } from "node:net";

import { Message } from "capnp-es";
import { Message as RpcMessage } from "capnp-es/capnp/rpc";

import { SallyportError } from "./errors.js";

const MAX_SEGMENTS = 64;
const MAX_MESSAGE_BYTES = 1024 * 1024;

interface Waiter {
  resolve(message: RpcMessage): void;
  reject(error: unknown): void;
}

export class Transport {
  /** Rejects when the connection ends, whoever ended it. */
  readonly ended: Promise<never>;
  #socket: Socket;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  #messages: RpcMessage[] = [];
  #waiters: Waiter[] = [];
  #end: SallyportError | undefined;
  #rejectEnded!: (error: SallyportError) => void;

  private constructor(socket: Socket) {
    this.#socket = socket;
    this.ended = new Promise<never>((_, reject) => (this.#rejectEnded = reject));
    this.ended.catch(() => undefined); // nobody has to wait for it
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
    socket.on("error", () => this.#finish(new SallyportError("disconnected")));
    socket.on("close", () => this.#finish(new SallyportError("disconnected")));
  }

  static connect(path: string, timeoutMs: number): Promise<Transport> {
    return new Promise((resolve, reject) => {
      const socket = connectSocket({ path });
      const fail = (detail: string) => {
        clearTimeout(timer);
        socket.destroy();
        reject(new SallyportError("cantConnect", `${path}: ${detail}`));
      };
      const timer = setTimeout(() => fail("no answer in time"), timeoutMs);
      socket.once("error", (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
      socket.once("connect", () => {
        clearTimeout(timer);
        socket.removeAllListeners("error");
        // A process may end while a connection is idle; calls hold it (see hold()).
        socket.unref();
        resolve(new Transport(socket));
      });
    });
  }

  get alive(): boolean {
    return this.#end === undefined;
  }

  /** Keeps the process alive while calls wait. */
  hold(waiting: boolean): void {
    if (waiting) this.#socket.ref();
    else this.#socket.unref();
  }

  /** Ends the connection; calls that wait are rejected with `why`. */
  finish(why: SallyportError): void {
    this.#finish(why);
  }

  // --- what capnp-es calls ---

  sendMessage(message: RpcMessage): void {
    if (this.#end) throw this.#end;
    // As it stands: capnp-es builds in one segment, and its own way of copying a message breaks lists of structs.
    this.#socket.write(Buffer.from(message.segment.message.toArrayBuffer()));
  }

  recvMessage(): Promise<RpcMessage> {
    const message = this.#messages.shift();
    if (message) return Promise.resolve(message);
    if (this.#end) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  close(): void {
    this.#finish(new SallyportError("disconnected"));
  }

  // --- inside ---

  #finish(why: SallyportError): void {
    if (this.#end) return;
    this.#end = why;
    this.#socket.destroy();
    for (const bytes of this.#received) bytes.fill(0);
    this.#received = [];
    this.#rejectEnded(why);
    for (const waiter of this.#waiters.splice(0)) waiter.reject(why);
  }

  #take(bytes: Buffer): void {
    this.#received.push(bytes);
    this.#receivedBytes += bytes.length;
    try {
      while (this.#end === undefined) {
        const length = this.#nextLength();
        if (length === undefined || this.#receivedBytes < length) return;
        this.#deliver(length);
      }
    } catch {
      this.#finish(new SallyportError("protocolError"));
    }
  }

  // The next message's length with its header, when the header is there. Nothing is allocated before it was judged.
  #nextLength(): number | undefined {
    if (this.#receivedBytes < 8) return undefined;
    if (this.#received.length > 1 && (this.#received[0]?.length ?? 0) < 8 + 4 * MAX_SEGMENTS) this.#join();
    const head = this.#received[0];
    if (!head) return undefined;
    const last = head.readUInt32LE(0);
    if (last >= MAX_SEGMENTS) throw new SallyportError("protocolError");
    const headerBytes = (4 + 4 * (last + 1) + 7) & ~7;
    if (head.length < headerBytes) return undefined;
    let bytes = headerBytes;
    for (let segment = 0; segment <= last; ++segment) bytes += 8 * head.readUInt32LE(4 + 4 * segment);
    if (bytes > MAX_MESSAGE_BYTES) throw new SallyportError("protocolError");
    return bytes;
  }

  #join(): Buffer {
    const all = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received);
    if (this.#received.length > 1) for (const part of this.#received) part.fill(0);
    this.#received = [all];
    return all;
  }

  #deliver(length: number): void {
    const all = this.#join();
    const own = new Uint8Array(all.subarray(0, length)).buffer; // a copy that begins at 0, as capnp-es wants it
    all.fill(0, 0, length);
    this.#received = all.length > length ? [all.subarray(length)] : [];
    this.#receivedBytes -= length;
    const message = new Message(own, false).getRoot(RpcMessage);
    const waiter = this.#waiters.shift();
    if (waiter) waiter.resolve(message);
    else this.#messages.push(message);
  }
}
