// vault.ts - Vault and Key, what programs use. Part of: @sallyport/client. The contract: docs/api.md.
import { Message, type Data, type List } from "capnp-es";

import { checkedBytes, checkedNumber, checkedPatience, checkedText } from "./arguments.js";
import { type Batch, inBatches } from "./batches.js";
import { Connection, bytesOf } from "./connection.js";
import { SallyportError, refusalOf } from "./errors.js";
import { type Key$Client, OpenItem, type OpenOutcome, Verb as SchemaVerb } from "./schema/vault.js";

/** A name of the vault's [peers], or the 32 bytes of an X25519 public key. */
export type Peer = string | Uint8Array;
export type Verb = "box" | "open" | "sign" | "freshNonce";
/** What became of one item of a batch: the result, or why there is none. */
export type Outcome<T> = T | SallyportError;

export interface Options {
  /** How long a call may take, and connecting. Default: 10 seconds. */
  timeoutMs?: number;
}
export interface KeyOptions {
  /** Those of them that policy grants; default: all that it does. */
  verbs?: Verb[];
  /** 0: the longest that policy allows. */
  leaseMs?: number;
}
export interface Boxed {
  nonce: Uint8Array;
  box: Uint8Array;
  /** Of our key. */
  version: number;
}
export interface Opened {
  text: Uint8Array;
  version: number;
}
export interface Signed {
  signature: Uint8Array;
  version: number;
}
export interface PublicKeys {
  active: Uint8Array;
  /** The active one; 0: the vault is older than this field. */
  version: number;
  /** Of all versions that may open now, the active one first. */
  opening: Uint8Array[];
}
export interface GrantedKey {
  name: string;
  kind: string;
  /** Of the active version, if there is one. */
  publicKey: Uint8Array | undefined;
  verbs: Verb[];
  grants: string[];
}

const VERBS: readonly Verb[] = ["box", "open", "sign", "freshNonce"];
const MAX_NONCES = 64;
export const DEFAULT_TIMEOUT_MS = 10_000;

/** Connects and asks for a self-test, so that a wrong path fails here and not later. */
export async function connect(path: string, options: Options = {}): Promise<Vault> {
  const vault = new Vault(path, options);
  try {
    await vault.ping();
  } catch (error) {
    vault.close();
    throw error;
  }
  return vault;
}

export class Vault {
  #path: string;
  #timeoutMs: number;
  #connecting: Promise<Connection> | undefined;
  #closed = false;

  /** Use connect(). */
  constructor(path: string, options: Options) {
    this.#path = path;
    this.#timeoutMs = checkedPatience(options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  }

  /** The connection, a new one if the last has ended. Not for programs. */
  async connection(): Promise<Connection> {
    if (this.#closed) throw new SallyportError("closed");
    const current = this.#connecting;
    if (current !== undefined) {
      const connection = await current.catch(() => undefined);
      if (connection?.alive) return connection;
      if (this.#connecting === current) this.#connecting = undefined;
    }
    if (this.#closed) throw new SallyportError("closed");
    this.#connecting ??= Connection.open(this.#path, this.#timeoutMs);
    const connection = await this.#connecting;
    if (this.#closed) {
      connection.transport.finish(new SallyportError("closed"));
      throw new SallyportError("closed");
    }
    return connection;
  }

  /** Throws selfTestFailed if the vault's known-answer test does. */
  async ping(): Promise<void> {
    const connection = await this.connection();
    const { selfTest } = await connection.answer(() => connection.app.ping());
    if (!selfTest) throw new SallyportError("selfTestFailed");
  }

  async publicKey(name: string): Promise<Uint8Array> {
    return (await this.publicKeys(name)).active;
  }

  /** With the number of the version, and the public halves of what still opens: to whom something may be boxed. */
  async publicKeys(name: string): Promise<PublicKeys> {
    checkedText(name, "name");
    const connection = await this.connection();
    const { outcome } = await connection.answer(() => connection.app.publicKey((params) => void (params.key = name)));
    if (outcome._isRefused) throw refusalOf(outcome.refused);
    const active = bytesOf(outcome.publicKey);
    const opening = outcome.opening.toArray().map((each) => bytesOf(each));
    return { active, version: outcome.version, opening: opening.length > 0 ? opening : [active] };
  }

  /** What this caller may do, key by key. */
  async keys(): Promise<GrantedKey[]> {
    const connection = await this.connection();
    const found: GrantedKey[] = [];
    // The vault gives as many as fit a message, in the order of their names.
    for (let more = true, after = ""; more; ) {
      const answer = await connection.answer(() => connection.app.keys((params) => void (params.after = after)));
      for (const key of answer.keys.toArray()) {
        found.push({
          name: key.name,
          kind: key.kind,
          publicKey: key.publicKey.length > 0 ? bytesOf(key.publicKey) : undefined,
          verbs: verbsOf(key.verbs),
          grants: key.grants.toArray(),
        });
      }
      more = answer.more;
      const last = found.at(-1)?.name ?? "";
      if (more && last === after) throw new SallyportError("protocolError");
      after = last;
    }
    return found;
  }

  /** notPermitted: no such key, or nothing of it is granted. Close it when it has served. */
  async key(name: string, options: KeyOptions = {}): Promise<Key> {
    const leaseMs = checkedLease(options.leaseMs ?? 0);
    const key = new Key(this, checkedText(name, "name"), options.verbs ?? [], leaseMs);
    await key.acquire(await this.connection(), leaseMs);
    return key;
  }

  /** Resolves if the signature is genuine; rejects (badSignature, badSize, lowOrderKey) if not. */
  async verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<void> {
    only(await this.verifyEach([{ publicKey, message, signature }]));
  }

  async verifyEach(
    items: readonly { publicKey: Uint8Array; message: Uint8Array; signature: Uint8Array }[],
  ): Promise<Outcome<true>[]> {
    for (const item of items) {
      checkedBytes(item.publicKey, "publicKey");
      checkedBytes(item.message, "message");
      checkedBytes(item.signature, "signature");
    }
    const connection = await this.connection();
    return inBatches(items, (item) => item.publicKey.length + item.message.length + item.signature.length, async (batch) => {
      const { outcomes } = await connection.answer(() =>
        connection.app.verify((params) => {
          const list = params._initItems(batch.length);
          batch.forEach((item, i) => {
            const out = list.get(i);
            out._initPublicKey(item.publicKey.length).copyBuffer(item.publicKey);
            out._initMessage(item.message.length).copyBuffer(item.message);
            out._initSignature(item.signature.length).copyBuffer(item.signature);
          });
        }),
      );
      return outcomes.toArray().map((outcome) => (outcome._isRefused ? refusalOf(outcome.refused) : true));
    });
  }

  /** Ends the connection; calls that wait and later ones, also of its keys, are rejected as `closed`. */
  close(): void {
    this.#closed = true;
    this.#connecting?.then(
      (connection) => connection.transport.finish(new SallyportError("closed")),
      () => undefined,
    );
  }
}

/** One key's capability, from Vault.key(). After a restart of the vault the next call asks for it anew. */
export class Key {
  /** What was granted. */
  verbs: readonly Verb[] = [];
  /** What was given; 0: no end. */
  leaseMs = 0;
  #vault: Vault;
  #wanted: readonly Verb[];
  #held: { connection: Connection; client: Key$Client } | undefined;
  #acquiring: Promise<void> | undefined;
  #leaseEnd = Infinity; // of a lease that the program asked for, on the monotonic clock
  #askedLease: boolean;
  #closed = false;

  /** Use Vault.key(). */
  constructor(vault: Vault, readonly name: string, wanted: readonly Verb[], leaseMs: number) {
    this.#vault = vault;
    this.#wanted = wanted;
    this.#askedLease = leaseMs > 0;
  }

  /** Not for programs. */
  async acquire(connection: Connection, leaseMs: number): Promise<void> {
    const { outcome } = await connection.answer(() =>
      connection.app.key((params) => {
        params.name = this.name;
        const list = params._initVerbs(this.#wanted.length);
        this.#wanted.forEach((verb, i) => list.set(i, schemaVerb(verb)));
        params.leaseMs = BigInt(leaseMs);
      }),
    );
    if (outcome._isRefused) throw refusalOf(outcome.refused);
    const granted = outcome.granted;
    this.#held = { connection, client: granted.key };
    this.verbs = verbsOf(granted.verbs);
    this.#given(Number(granted.leaseMs), leaseMs);
  }

  #given(leaseMs: number, asked: number): void {
    this.leaseMs = leaseMs;
    this.#askedLease = asked > 0;
    this.#leaseEnd = this.#askedLease ? performance.now() + leaseMs : Infinity;
  }

  async #capability(): Promise<{ connection: Connection; client: Key$Client }> {
    if (this.#closed) throw new SallyportError("closed");
    const connection = await this.#vault.connection();
    if (this.#held?.connection !== connection) {
      const left = this.#askedLease ? Math.floor(this.#leaseEnd - performance.now()) : 0;
      if (this.#askedLease && left <= 0) throw new SallyportError("expired");
      // Calls that come together after a restart ask once.
      this.#acquiring ??= this.acquire(connection, left).finally(() => (this.#acquiring = undefined));
      await this.#acquiring;
    }
    if (this.#closed) throw new SallyportError("closed");
    if (!this.#held) throw new SallyportError("disconnected");
    return this.#held;
  }

  async box(to: Peer, text: Uint8Array): Promise<Boxed> {
    return only(await this.boxEach([{ to, text }]));
  }

  async boxEach(items: readonly { to: Peer; text: Uint8Array }[]): Promise<Outcome<Boxed>[]> {
    for (const item of items) {
      checkedPeer(item.to, "to");
      checkedBytes(item.text, "text");
    }
    const { connection, client } = await this.#capability();
    return inBatches(items, (item) => peerBytes(item.to) + item.text.length, async (batch) => {
      const { outcomes } = await connection.answer(() =>
        client.box((params) => {
          const list = params._initItems(batch.length);
          batch.forEach((item, i) => {
            const out = list.get(i);
            setPeer(out.peer, item.to);
            out._initText(item.text.length).copyBuffer(item.text);
          });
        }),
      );
      return outcomes.toArray().map((outcome) => {
        if (outcome._isRefused) return refusalOf(outcome.refused);
        const { nonce, box, version } = outcome.boxed;
        return { nonce: bytesOf(nonce), box: bytesOf(box), version };
      });
    });
  }

  async open(from: Peer, nonce: Uint8Array, box: Uint8Array): Promise<Opened> {
    return only(await this.openEach([{ from, nonce, box }]));
  }

  async openEach(items: readonly { from: Peer; nonce: Uint8Array; box: Uint8Array }[]): Promise<Outcome<Opened>[]> {
    for (const item of items) {
      checkedPeer(item.from, "from");
      checkedBytes(item.nonce, "nonce");
      checkedBytes(item.box, "box");
    }
    const { connection, client } = await this.#capability();
    return inBatches(items, (item) => peerBytes(item.from) + item.nonce.length + item.box.length, async (batch) => {
      const { outcomes } = await connection.answer(() =>
        client.open((params) => {
          const list = params._initItems(batch.length);
          batch.forEach((item, i) => {
            const out = list.get(i);
            setPeer(out.peer, item.from);
            out._initNonce(item.nonce.length).copyBuffer(item.nonce);
            out._initBox(item.box.length).copyBuffer(item.box);
          });
        }),
      );
      return outcomes.toArray().map(openedOf);
    });
  }

  /** libsodium's crypto_box_seal: a box by nobody in particular to this key. */
  async openSealed(box: Uint8Array): Promise<Opened> {
    return only(await this.openSealedEach([box]));
  }

  async openSealedEach(boxes: readonly Uint8Array[]): Promise<Outcome<Opened>[]> {
    for (const box of boxes) checkedBytes(box, "box");
    const { connection, client } = await this.#capability();
    return inBatches(boxes, (box) => box.length, async (batch) => {
      const { outcomes } = await connection.answer(() =>
        client.openSealed((params) => setAll(params._initBoxes(batch.length), batch)),
      );
      return outcomes.toArray().map(openedOf);
    });
  }

  async sign(message: Uint8Array): Promise<Signed> {
    return only(await this.signEach([message]));
  }

  async signEach(messages: readonly Uint8Array[]): Promise<Outcome<Signed>[]> {
    for (const message of messages) checkedBytes(message, "message");
    const { connection, client } = await this.#capability();
    return inBatches(messages, (message) => message.length, async (batch) => {
      const { outcomes } = await connection.answer(() =>
        client.sign((params) => setAll(params._initMessages(batch.length), batch)),
      );
      return outcomes.toArray().map((outcome) => {
        if (outcome._isRefused) return refusalOf(outcome.refused);
        return { signature: bytesOf(outcome.signed.signature), version: outcome.signed.version };
      });
    });
  }

  /** Values of 16 bytes that were never given out before under this key and domain. At most 64. */
  async freshNonces(domain: string, count = 1): Promise<Uint8Array[]> {
    checkedText(domain, "domain");
    if (checkedNumber(count, Number.MAX_SAFE_INTEGER, "count") > MAX_NONCES) throw new SallyportError("tooMany");
    const { connection, client } = await this.#capability();
    const { outcome } = await connection.answer(() =>
      client.freshNonces((params) => {
        params.domain = domain;
        params.count = count;
      }),
    );
    if (outcome._isRefused) throw refusalOf(outcome.refused);
    return outcome.nonces.toArray().map((nonce) => bytesOf(nonce));
  }

  /** Begins the lease anew; resolves with what was given. */
  async renew(leaseMs = 0): Promise<number> {
    checkedLease(leaseMs);
    const { connection, client } = await this.#capability();
    const { outcome } = await connection.answer(() => client.renew((params) => void (params.leaseMs = BigInt(leaseMs))));
    if (outcome._isRefused) throw refusalOf(outcome.refused);
    this.#given(Number(outcome.leaseMs), leaseMs);
    return this.leaseMs;
  }

  /** Gives the capability back. Calls after it are rejected as `closed`. A second time: nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const held = this.#held;
    this.#held = undefined;
    if (!held?.connection.alive) return;
    try {
      await held.connection.answer(() => held.client.close());
      held.connection.release(held.client);
    } catch {
      // The connection has ended, and the capability with it.
    }
  }
}

// --- values ---

function checkedLease(leaseMs: number): number {
  return checkedNumber(leaseMs, Number.MAX_SAFE_INTEGER, "leaseMs");
}

function schemaVerb(verb: Verb): SchemaVerb {
  const index = VERBS.indexOf(verb);
  if (index < 0) throw new SallyportError("badArgument", "verbs");
  return index as SchemaVerb;
}

function verbsOf(list: List<SchemaVerb>): Verb[] {
  return list.toArray().flatMap((verb) => VERBS[verb] ?? []);
}

function checkedPeer(peer: Peer, what: string): void {
  if (typeof peer === "string") checkedText(peer, what);
  else checkedBytes(peer, what);
}

function peerBytes(peer: Peer): number {
  return typeof peer === "string" ? Buffer.byteLength(peer) : peer.length;
}

function setPeer(out: { name: string; _initKey(length: number): Data }, peer: Peer): void {
  if (typeof peer === "string") out.name = peer;
  else out._initKey(peer.length).copyBuffer(peer);
}

// capnp-es can't make an element of a List(Data) in its place: each is made in a message of its own and copied.
function setAll(list: List<Data>, values: Batch<Uint8Array>): void {
  values.forEach((value, i) => {
    const data = new Message().initRoot(OpenItem)._initBox(value.length);
    data.copyBuffer(value);
    list.set(i, data);
  });
}

function openedOf(outcome: OpenOutcome): Outcome<Opened> {
  if (outcome._isRefused) return refusalOf(outcome.refused);
  return { text: bytesOf(outcome.opened.text, true), version: outcome.opened.version };
}

function only<T>(outcomes: Outcome<T>[]): T {
  const [outcome] = outcomes;
  if (outcome === undefined) throw new SallyportError("protocolError");
  if (outcome instanceof SallyportError) throw outcome;
  return outcome;
}
