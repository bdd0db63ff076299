// client_typescript.ts - what node programs do with @sallyport/client. Run by clients_typescript_test.py: PART SOCKET ...
import { strict as assert } from "node:assert";
import { createPublicKey, randomBytes, verify as verifyEd25519 } from "node:crypto";
import { createInterface } from "node:readline";

import { connect, REFUSALS, SallyportError } from "@sallyport/client";

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

await { verbs, lies, wrong, restart, open: cross, box: cross }[part as "verbs"]();
if (part !== "open" && part !== "box") console.log("all good");
process.stdin.destroy();
