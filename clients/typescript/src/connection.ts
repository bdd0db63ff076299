// connection.ts - one connection to the vault or to netd: calls with a timeout, errors by name. Part of:
// @sallyport/client.
import { Conn, Message, type Data } from "capnp-es";
import { Message as RpcMessage } from "capnp-es/capnp/rpc";

import { SallyportError } from "./errors.js";
import { Network, type Network$Client } from "./schema/net.js";
import { App, type App$Client } from "./schema/vault.js";
import { Transport } from "./transport.js";

const MAX_TIMER_MS = 2 ** 31 - 1;

/** A client of capnp-es. */
interface Capability {
  client: unknown;
}

export class Connection {
  #conn: Conn;
  #app: App$Client | undefined;
  #network: Network$Client | undefined;
  #waiting = 0;

  private constructor(readonly transport: Transport, readonly timeoutMs: number) {
    // It sees every end as an error of its own; `ended` has told it to those who care.
    this.#conn = new Conn(transport);
    this.#conn.onError = (error) => transport.finish(error instanceof SallyportError ? error : new SallyportError("protocolError"));
  }

  static async open(path: string, timeoutMs: number): Promise<Connection> {
    return new Connection(await Transport.connect(path, timeoutMs), timeoutMs);
  }

  /** What the vault's socket gives. */
  get app(): App$Client {
    return (this.#app ??= this.#conn.bootstrap(App));
  }

  /** What netd's socket gives. */
  get network(): Network$Client {
    return (this.#network ??= this.#conn.bootstrap(Network));
  }

  get alive(): boolean {
    return this.transport.alive;
  }

  /**
   * The answer of a call, or a SallyportError. A call that takes too long ends the connection; `waitsMs` is how much longer
   * it may take than others, because it waits for something.
   */
  async answer<T>(call: () => { promise(): Promise<T> }, waitsMs = 0): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const patienceMs = Math.min(this.timeoutMs + waitsMs, waitsMs === Infinity ? Infinity : MAX_TIMER_MS);
    const tooLate = new Promise<never>((_, reject) => {
      if (patienceMs === Infinity) return;
      timer = setTimeout(() => {
        const why = new SallyportError("timedOut");
        this.transport.finish(why);
        reject(why);
      }, patienceMs);
    });
    if (++this.#waiting === 1) this.transport.hold(true);
    try {
      return await Promise.race([call().promise(), this.transport.ended, tooLate]);
    } catch (error) {
      throw named(error);
    } finally {
      clearTimeout(timer);
      if (--this.#waiting === 0) this.transport.hold(false);
    }
  }

  /**
   * Gives a capability back. capnp-es 0.0.16 never sends Release: without it every Key that was closed stays an object
   * of the vault until the connection ends, and the 1025th is refused as tooManyObjects.
   */
  release(capability: Capability): void {
    const id = importId(capability);
    if (id === undefined || !this.alive) return;
    delete this.#conn.imports[id];
    const message = new Message().initRoot(RpcMessage);
    const release = message._initRelease();
    release.id = id;
    release.referenceCount = 1;
    this.transport.sendMessage(message);
  }
}

// The number that the vault gave the capability. It is inside of what capnp-es wraps; the version is pinned.
function importId(capability: Capability): number | undefined {
  const id = (capability.client as { rc?: { _client?: { id?: unknown } } }).rc?._client?.id;
  return typeof id === "number" ? id : undefined;
}

// capnp-es tells a remote exception by its text alone.
function named(error: unknown): SallyportError {
  if (error instanceof SallyportError) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (/not implemented|unimplemented/i.test(text)) return new SallyportError("unsupported");
  return new SallyportError("vaultFailed", text);
}

// --- values ---

/** A copy of a Data field's bytes; the message's own are wiped if it was a secret. */
export function bytesOf(data: Data, wipe = false): Uint8Array {
  const view = data.toUint8Array();
  const copy = Uint8Array.from(view);
  if (wipe) view.fill(0);
  return copy;
}
