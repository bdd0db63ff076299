// errors.ts - what can go wrong, by name. Part of: @sallyport/client.
import { NetRefusal } from "./schema/net.js";
import { Refusal } from "./schema/vault.js";

/** The vault's refusals, by the schema's names and in its order (proto/vault.capnp). */
export const REFUSALS = [
  "unspecified", "unknownEntry", "unknownKey", "peerNotAllowed", "badBox", "badSize", "lowOrderKey", "rateLimited",
  "nonceUnavailable", "locked", "tooMany", "notPermitted", "badConfig", "badNonce", "tooLong", "expired", "wrongKind",
  "wrongVersion", "breakerOpen", "notRecorded", "tooManyObjects", "badSignature", "badDomain",
  "hsmUnavailable", "wrongProtocol", "blockUsed",
] as const;

/** netd's refusals, likewise (proto/net.capnp). As a code each has "net" in front. */
export const NET_REFUSALS = [
  "netUnspecified", "netUnknownName", "netNotAChannel", "netTimedOut", "netUnreachable", "netHandshakeFailed", "netVaultRefused",
  "netTooBig", "netClosed", "netTooManyObjects", "netFailed", "netShuttingDown", "netWrongProtocol", "netReservedCode",
] as const;

const SENTENCES = {
  unspecified: "refused without a reason",
  unknownEntry: "the configuration has no entry of this name",
  unknownKey: "the vault has no key of this name",
  peerNotAllowed: "the peer is not one that policy allows here",
  badBox: "the box doesn't open: it was changed, or is of another key, peer or nonce",
  badSize: "a key, nonce, box or signature has the wrong length",
  lowOrderKey: "the public key is one that gives no secrecy",
  rateLimited: "more than policy allows a second: try later",
  nonceUnavailable: "the vault can't make a provably fresh nonce: look at its status",
  locked: "the key is locked",
  tooMany: "more than 64 items in one call",
  notPermitted: "policy doesn't grant this to this caller",
  badConfig: "not a valid configuration",
  badNonce: "not a nonce of an application's box",
  tooLong: "longer than policy allows, or than fits one message",
  expired: "the lease is over, or the grant was revoked",
  wrongKind: "a key of this kind can't do that",
  wrongVersion: "no version of the key is in a state that allows this",
  breakerOpen: "too many boxes of this caller didn't open: wait, and find out why",
  notRecorded: "the audit log can't be written, so nothing was done",
  tooManyObjects: "this connection holds as many keys as one may: close some",
  badSignature: "the signature is not of this message and key",
  badDomain: "policy lists no such domain for fresh nonces",
  hsmUnavailable: "the key's token doesn't answer: try later, tell the operator",
  wrongProtocol: "the entry speaks another protocol, or the same in another mode",
  blockUsed: "a connection was opened with this block before",
  netUnspecified: "netd refused without a reason",
  netUnknownName: "netd has no entry of this name",
  netNotAChannel: "the entry's service is not \"channel\"",
  netTimedOut: "nothing happened in the time given",
  netUnreachable: "the other side can't be reached",
  netHandshakeFailed: "the other side closed during the handshake, or isn't what the entry says",
  netVaultRefused: "our own vault refused: status tells why",
  netTooBig: "longer than the protocol or the entry allows",
  netClosed: "our direction has ended",
  netTooManyObjects: "netd has as many channels for us as it may",
  netFailed: "netd failed: its log tells more",
  netShuttingDown: "netd is shutting down",
  netWrongProtocol: "the entry speaks another protocol",
  netReservedCode: "the code that is the protocol's own: 0xFFFFFFFF",
  broken: "the channel is broken",
  unknown: "refused for a reason that this package is too old to know",
  cantConnect: "can't connect",
  disconnected: "the daemon closed the connection before it answered",
  timedOut: "the daemon didn't answer in time",
  unsupported: "who serves this socket doesn't know the call: is it the [vault] socket, or for channels the [net] socket?",
  protocolError: "who serves this socket doesn't speak its protocol",
  vaultFailed: "the daemon failed: its log tells more",
  selfTestFailed: "the vault's self-test failed",
  closed: "it was closed by this program",
  badArgument: "an argument that can't be",
} as const;

/** A refusal's name, or what went wrong on this side. */
export type Code = keyof typeof SENTENCES;

export class SallyportError extends Error {
  override readonly name = "SallyportError";
  constructor(readonly code: Code, detail?: string) {
    super(`${code}: ${SENTENCES[code]}${detail === undefined ? "" : ` (${detail})`}`);
  }
}

// Compiles only while the names above are all that the schema has.
type Camel<S extends string> = S extends `${infer A}_${infer B}` ? `${Lowercase<A>}${Capitalize<Camel<B>>}` : Lowercase<S>;
type SchemasNames = Camel<keyof typeof Refusal>;
type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : never) : never;
const inStep: Same<SchemasNames, (typeof REFUSALS)[number]> = true;
void inStep;
// capnp-es spells notAChannel as NOT_ACHANNEL: compared without regard to case.
type NetNames = Lowercase<`net${Camel<keyof typeof NetRefusal>}`>;
const netInStep: Same<NetNames, Lowercase<(typeof NET_REFUSALS)[number]>> = true;
void netInStep;

export function refusalOf(value: number): SallyportError {
  return new SallyportError(REFUSALS[value] ?? "unknown");
}

export function netRefusalOf(value: number, detail?: string): SallyportError {
  return new SallyportError(NET_REFUSALS[value] ?? "unknown", detail);
}
