// client_typescript.ts - what node programs do with @sallyport/client. Run by clients_typescript_test.py: PART SOCKET ...
import { strict as assert } from "node:assert";
import { createPublicKey, randomBytes, verify as verifyEd25519 } from "node:crypto";
import { createInterface } from "node:readline";

import { connect, connectPeer, listenPeer, type PeerChannel, REFUSALS, SallyportError } from "@sallyport/client";

const [part, path, ...rest] = process.argv.slice(2) as [string, string, ...string[]];

const coded = (code: string) => (error: unknown) => {
  assert(error instanceof SallyportError, String(error));
  assert.equal(error.code, code);
  return true;
};
const bytes = (text: string) => Buffer.from(text);

async function verbs(): Promise<void> {
  const vault = await connect(path);
  const key = await vault.key("backup");
  assert.deepEqual(key.verbs, ["box", "open", "freshNonce"]);
  assert.equal(key.leaseMs, 0);
  const publicKey = await vault.publicKey("backup");
  const notary = await vault.publicKey("notary");
  assert.deepEqual(await vault.publicKeys("backup"), { active: publicKey, version: 1, opening: [publicKey] });
  assert.deepEqual(await vault.keys(), [
    { name: "backup", kind: "x25519", publicKey, verbs: ["box", "open", "freshNonce"], grants: ["backup"] },
    { name: "notary", kind: "ed25519", publicKey: notary, verbs: ["sign"], grants: ["notary"] },
  ]);

  // Each verb.
  const boxed = await key.box("alice", bytes("text"));
  assert.equal(Buffer.from(boxed.nonce.subarray(0, 8)).toString(), "SallyBox");
  assert.equal(Buffer.from((await key.open("alice", boxed.nonce, boxed.box)).text).toString(), "text");
  const empty = await key.box("alice", new Uint8Array());
  assert.equal((await key.open("alice", empty.nonce, empty.box)).text.length, 0);
  const nonces = [...(await key.freshNonces("minute-k", 64)), ...(await key.freshNonces("minute-k"))];
  assert.equal(new Set(nonces.map((nonce) => Buffer.from(nonce).toString("hex"))).size, 65);
  const judged = await vault.verifyEach([{ publicKey: randomBytes(31), message: bytes("m"), signature: randomBytes(64) }]);
  assert(judged[0] instanceof SallyportError && judged[0].code === "badSize");

  // Signatures, which node's own Ed25519 and the vault verify; a batch of them; nobody else's.
  const signing = await vault.key("notary");
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), notary]); // SubjectPublicKeyInfo, RFC 8410
  const nodeKey = createPublicKey({ key: der, format: "der", type: "spki" });
  for (const message of [bytes(""), bytes("message"), randomBytes(40_000)]) {
    const { signature, version } = await signing.sign(message);
    assert.equal(version, 1);
    assert(verifyEd25519(null, message, nodeKey, signature));
    await vault.verify(notary, message, signature);
    await assert.rejects(vault.verify(notary, Buffer.concat([message, bytes("x")]), signature), coded("badSignature"));
    await assert.rejects(vault.verify(publicKey, message, signature), (error) => error instanceof SallyportError);
  }
  const messages = Array.from({ length: 150 }, (_, i) => randomBytes(i * 10));
  for (const [i, each] of (await signing.signEach(messages)).entries()) {
    assert(!(each instanceof SallyportError), String(each));
    assert(verifyEd25519(null, messages[i]!, nodeKey, each.signature));
  }
  const mixed = await signing.signEach([bytes("short"), new Uint8Array(48 * 1024 + 1)]);
  assert(!(mixed[0] instanceof SallyportError) && mixed[1] instanceof SallyportError && mixed[1].code === "tooLong");
  await assert.rejects(key.sign(bytes("x")), coded("notPermitted"));
  await assert.rejects(signing.box("alice", bytes("x")), coded("notPermitted"));
  await signing.close();
  await assert.rejects(signing.sign(bytes("x")), coded("closed"));

  // Refusals by name.
  const changed = Uint8Array.from(boxed.box);
  changed[0]! ^= 1;
  await assert.rejects(vault.publicKey("nobody"), coded("unknownKey"));
  await assert.rejects(vault.key("nobody"), coded("notPermitted"));
  await assert.rejects(key.box("mallory", bytes("text")), coded("peerNotAllowed"));
  await assert.rejects(key.box(bytes("short"), bytes("text")), coded("badSize"));
  await assert.rejects(key.box(new Uint8Array(32), bytes("text")), coded("lowOrderKey"));
  await assert.rejects(key.box("alice", new Uint8Array(48 * 1024 + 1)), coded("tooLong"));
  await assert.rejects(key.box("alice", new Uint8Array(1_000_000)), coded("tooLong"));
  await assert.rejects(key.open("alice", boxed.nonce, changed), coded("badBox"));
  await assert.rejects(key.open("alice", new Uint8Array(24), boxed.box), coded("badNonce"));
  await assert.rejects(key.openSealed(new Uint8Array(80)), (error) => error instanceof SallyportError);
  await assert.rejects(key.freshNonces("other"), coded("badDomain"));
  await assert.rejects(key.freshNonces("minute-k", 65), coded("tooMany"));
  await assert.rejects(key.freshNonces("minute-k", -1), coded("badArgument"));
  await assert.rejects(vault.key("backup", { leaseMs: -1 }), coded("badArgument"));
  await assert.rejects(vault.key("backup", { leaseMs: 2 ** 64 }), coded("badArgument"));
  await assert.rejects(key.renew(1e30), coded("badArgument"));
  for (const timeoutMs of [0, -1, NaN, 2 ** 31, Infinity]) await assert.rejects(connect(path, { timeoutMs }), coded("badArgument"));
  // What a program without a compiler may give.
  for (const wrong of ["text", 5, null, undefined, [1, 2], new Uint16Array(2), new ArrayBuffer(2)]) {
    const data = wrong as unknown as Uint8Array;
    await assert.rejects(key.box("alice", data), coded("badArgument"));
    await assert.rejects(key.open("alice", data, boxed.box), coded("badArgument"));
    await assert.rejects(key.open("alice", boxed.nonce, data), coded("badArgument"));
    await assert.rejects(key.openSealed(data), coded("badArgument"));
    await assert.rejects(signing.sign(data), coded("badArgument"));
    await assert.rejects(vault.verify(publicKey, data, randomBytes(64)), coded("badArgument"));
    if (typeof wrong !== "string") {
      await assert.rejects(key.box(data, bytes("text")), coded("badArgument"));
      await assert.rejects(vault.key(data as unknown as string), coded("badArgument"));
      await assert.rejects(vault.publicKey(data as unknown as string), coded("badArgument"));
      await assert.rejects(key.freshNonces(data as unknown as string), coded("badArgument"));
    }
  }
  const judgedEach = await key.boxEach([{ to: "alice", text: bytes("a") }, { to: "mallory", text: bytes("b") }]);
  assert(!(judgedEach[0] instanceof SallyportError));
  assert(judgedEach[1] instanceof SallyportError && judgedEach[1].code === "peerNotAllowed");

  // Large batches are cut into calls; one whole message fits, and an open answers as much.
  for (const [count, size] of [[64, 100], [1000, 10], [40, 48 * 1024], [3, 20_000]] as const) {
    const texts = Array.from({ length: count }, () => randomBytes(size));
    const boxes = await key.boxEach(texts.map((text) => ({ to: "alice", text })));
    const opened = await key.openEach(
      boxes.map((each) => {
        assert(!(each instanceof SallyportError), String(each));
        return { from: "alice", nonce: each.nonce, box: each.box };
      }),
    );
    opened.forEach((each, i) => assert(!(each instanceof SallyportError) && texts[i]!.equals(each.text)));
  }
  assert.deepEqual(await key.boxEach([]), []);

  // Fewer verbs, and a lease.
  const opener = await vault.key("backup", { verbs: ["open"], leaseMs: 60_000 });
  assert.deepEqual(opener.verbs, ["open"]);
  assert.equal(opener.leaseMs, 60_000);
  await assert.rejects(opener.box("alice", bytes("text")), coded("notPermitted"));
  assert.equal(await opener.renew(50), 50);
  await new Promise((resolve) => setTimeout(resolve, 120));
  await assert.rejects(opener.open("alice", boxed.nonce, boxed.box), coded("expired"));

  // More keys than the vault keeps for a connection, if they weren't released.
  for (let i = 0; i < 1100; ++i) await (await vault.key("backup")).close();
  const held = [];
  for (let i = 0; i < 62; ++i) held.push(await vault.key("backup"));
  await assert.rejects(vault.key("backup"), coded("tooManyObjects"));
  await Promise.all(held.map((each) => each.close()));
  await (await vault.key("backup")).close();

  // Closing twice, and use after it.
  await key.close();
  await key.close();
  await assert.rejects(key.box("alice", bytes("text")), coded("closed"));
  const other = await vault.key("backup");
  vault.close();
  vault.close();
  await assert.rejects(other.box("alice", bytes("text")), coded("closed"));
  await assert.rejects(vault.ping(), coded("closed"));
  await other.close();
}

async function lies(): Promise<void> {
  const vault = await connect(path, { timeoutMs: 1500 });
  for (const [number, name] of REFUSALS.entries()) await assert.rejects(vault.publicKey(`refuse:${number}`), coded(name));
  await assert.rejects(vault.publicKey("refuse:77"), coded("unknown"));
  await assert.rejects(vault.publicKey("failed:0"), coded("vaultFailed"));
  await assert.rejects(vault.publicKey("failed:3"), coded("unsupported"));
  for (const [name, code] of [
    ["hangup", "disconnected"],
    ["cut", "disconnected"],
    ["other", "protocolError"],
    ["raw:ffffffff00000000", "protocolError"],
    ["raw:00000000ffffffff", "protocolError"],
    ["raw:0000000000000000", "protocolError"],
    ["hang", "timedOut"],
  ] as const) {
    await assert.rejects(vault.publicKey(name), coded(code), name);
    await vault.ping(); // on a new connection
  }
  vault.close();
}

async function wrong(): Promise<void> {
  await assert.rejects(connect("/nonexistent/vault.sock"), coded("cantConnect"));
  await assert.rejects(connect(path), coded("unsupported"));
}

async function restart(): Promise<void> {
  const lines = createInterface(process.stdin)[Symbol.asyncIterator]();
  const vault = await connect(path);
  const key = await vault.key("backup");
  const leased = await vault.key("backup", { leaseMs: 3_600_000 });
  const boxed = await key.box("alice", bytes("text"));
  console.log("boxed");
  await lines.next();
  await assert.rejects(key.box("alice", bytes("text")), (error) => error instanceof SallyportError &&
    (error.code === "cantConnect" || error.code === "disconnected"));
  await assert.rejects(vault.ping(), coded("cantConnect"));
  console.log("down");
  await lines.next();
  const both = await Promise.all([0, 1].map(() => key.open("alice", boxed.nonce, boxed.box)));
  assert(both.every((each) => Buffer.from(each.text).toString() === "text"));
  await leased.open("alice", boxed.nonce, boxed.box);
  assert(leased.leaseMs < 3_600_000);
  vault.close();
}

async function cross(): Promise<void> {
  const vault = await connect(path);
  const key = await vault.key("backup");
  const base64 = (data: Uint8Array) => Buffer.from(data).toString("base64");
  if (part === "box") {
    const boxed = await key.box("alice", bytes("from TypeScript"));
    console.log(base64(boxed.nonce), base64(boxed.box));
  } else {
    const [nonce, box] = rest.map((each) => Buffer.from(each, "base64"));
    console.log(Buffer.from((await key.open("alice", nonce!, box!)).text).toString());
  }
  vault.close();
}

// --- channels of the peer protocol: docs/protocol.md §13.4, sentence by sentence, both ends through one netd ---

async function pair(): Promise<[PeerChannel, PeerChannel]> {
  const listener = await listenPeer(path, "loop");
  const ours = await connectPeer(path, "loop");
  const theirs = await listener.accept(10_000);
  listener.close();
  assert(theirs.address.startsWith("127.0.0.1:"));
  assert.equal(ours.address, "");
  return [ours, theirs];
}
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;
const whole = { status: "complete", needed: 0, reason: "" } as const;

async function peer(): Promise<void> {
  const [ours, theirs] = await pair();
  // send takes any size; receive fills a buffer that no message of the RPC holds; the code is the caller's.
  const data = randomBytes(5_000_000);
  const sending = ours.send(data, 9);
  const got = await theirs.receive(data.length, 60_000);
  await sending;
  assert(same(got.data, data));
  assert.deepEqual({ ...got, data: 0 }, { ...whole, code: 9, data: 0 });
  // Nothing at all is one empty frame, which is given out alone.
  await ours.send(bytes("before"), 5);
  await ours.send(new Uint8Array(), 5);
  await ours.send(bytes("behind"), 5);
  assert.equal(Buffer.from((await theirs.receive(6, 10_000)).data).toString(), "before");
  assert.deepEqual(await theirs.receive(100, 10_000), { ...whole, data: new Uint8Array(), code: 5 });
  assert.equal(Buffer.from((await theirs.receive(6, 10_000)).data).toString(), "behind");
  // Codes: all but the reserved one, and only what fits 32 bits.
  for (const code of [0, 1, 0xffff_fffd]) {
    await ours.send(bytes("x"), code);
    assert.equal((await theirs.receive(1, 10_000)).code, code);
  }
  await assert.rejects(ours.send(bytes("x"), 0xffff_ffff), coded("netReservedCode"));
  for (const code of [-1, 2 ** 32, 2 ** 32 + 7, 0.5, NaN, null as unknown as number]) await assert.rejects(ours.send(bytes("x"), code), coded("badArgument"));
  for (const wrong of ["text", 5, null]) await assert.rejects(ours.send(wrong as unknown as Uint8Array), coded("badArgument"));
  for (const size of [-1, 2 ** 53, 0.5, NaN]) await assert.rejects(ours.receive(size, 1), coded("badArgument"));
  for (const time of [-1, 2 ** 31, 0.5, NaN]) await assert.rejects(ours.receive(1, time), coded("badArgument"));
  // A call gathers frames of one code; one that ends inside a frame gets whole ones, and the rest is kept.
  for (const [text, code] of [["one", 1], ["uno", 1], ["three", 3]] as const) await ours.send(bytes(text), code);
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.deepEqual(await theirs.receive(5, 10_000), { ...whole, data: Uint8Array.from(bytes("one")), code: 1 });
  assert.deepEqual(await theirs.receive(100, 10_000), { ...whole, data: Uint8Array.from(bytes("uno")), code: 1 });
  const big = await theirs.receive(4, 10_000);
  assert.deepEqual(big, { status: "tooBig", needed: 5, reason: "", data: new Uint8Array(), code: 3 });
  assert.equal((await theirs.receive(5, 10_000)).data.length, 5);
  // A slow peer: the good bytes, and it is told.
  await ours.send(bytes("good"));
  assert.deepEqual(await theirs.receive(10, 200), { ...whole, status: "slowPeer", data: Uint8Array.from(bytes("good")), code: 0 });
  // Two that write large frames at once don't block each other.
  const both = [randomBytes(2_000_000), randomBytes(2_000_000)] as const;
  await Promise.all([ours.send(both[0]), theirs.send(both[1])]);
  assert(same((await theirs.receive(2_000_000, 30_000)).data, both[0]));
  assert(same((await ours.receive(2_000_000, 30_000)).data, both[1]));
  // One of each at a time.
  const waiting = ours.receive(2, 20_000);
  await assert.rejects(ours.receive(2, 20_000), coded("badArgument"));
  await theirs.send(bytes("ok"));
  assert.equal((await waiting).data.length, 2);
  // The authenticated end, after which the other direction goes on.
  await ours.send(bytes("last words"));
  await ours.finish();
  await assert.rejects(ours.send(bytes("more")), coded("netClosed"));
  const last = await theirs.receive(100, 10_000);
  assert.deepEqual(last, { ...whole, status: "ended", data: Uint8Array.from(bytes("last words")), code: 0 });
  assert.equal((await theirs.receive(100, 10_000)).status, "ended");
  await theirs.send(bytes("and mine"));
  await theirs.close();
  await theirs.close();
  assert.equal((await ours.receive(100, 10_000)).status, "ended");
  await assert.rejects(theirs.receive(1), coded("closed"));
  await ours.close();
  // A channel that is dropped has no end; both further calls and the sender are told.
  const [left, right] = await pair();
  await left.send(bytes("and then I crash"));
  left.abandon();
  const cut = await right.receive(100, 10_000);
  assert.deepEqual(cut, { ...whole, status: "broken", reason: "truncated", data: Uint8Array.from(bytes("and then I crash")), code: 0 });
  assert.equal((await right.receive(100, 10_000)).reason, "truncated");
  await assert.rejects(right.send(bytes("too late")), coded("broken"));
  right.abandon();
  // Refusals by name.
  await assert.rejects(connectPeer(path, "nobody"), coded("netUnknownName"));
  await assert.rejects(listenPeer(path, "nobody"), coded("netUnknownName"));
  await assert.rejects(connectPeer("/nonexistent/net.sock", "loop"), coded("cantConnect"));
  await assert.rejects(connectPeer(rest[0]!, "loop"), coded("unsupported"), "the vault's socket");
  const curve = await listenPeer(path, "curve");
  await assert.rejects(curve.accept(1000), coded("netWrongProtocol"));
  curve.close();
  const listener = await listenPeer(path, "loop");
  await assert.rejects(listener.accept(100), coded("netTimedOut"));
  const accepting = assert.rejects(listener.accept(), coded("closed"));
  await assert.rejects(listener.accept(), coded("badArgument"));
  listener.close();
  await accepting;
  await assert.rejects(listener.accept(), coded("closed"));
}

// The peer is Python's, on the wire: half a frame, then a bit that is wrong.
async function fault(): Promise<void> {
  const listener = await listenPeer(path, "chat");
  console.log("listening");
  const channel = await listener.accept(20_000);
  const text = Uint8Array.from(bytes("good"));
  assert.deepEqual(await channel.receive(10, 1000), { ...whole, status: "slowPeer", data: text, code: 0 });
  console.log("slow");
  const broken = { ...whole, status: "broken", reason: "bad_tag", code: 0 } as const;
  assert.deepEqual(await channel.receive(10, 20_000), { ...broken, data: Uint8Array.from(bytes("whole")) });
  assert.deepEqual(await channel.receive(10, 20_000), { ...broken, data: new Uint8Array() });
  await assert.rejects(channel.send(text), coded("broken"));
  channel.abandon();
}

// Its peer says nothing, and netd waits longer.
async function silent(): Promise<void> {
  await assert.rejects(connectPeer(path, "silent", { timeoutMs: 300 }), coded("timedOut"));
}

await { peer, fault, silent, verbs, lies, wrong, restart, open: cross, box: cross }[part as "verbs"]();
if (part !== "open" && part !== "box") console.log("all good");
process.stdin.destroy();
