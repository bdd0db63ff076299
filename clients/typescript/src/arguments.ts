// arguments.ts - what a program gave us, checked before it is in a message. Part of: @sallyport/client.
// A compiler that was overruled, or none: capnp-es cuts a number to its field's size in silence, and copies a text that it
// takes for bytes as zeros.
import { types } from "node:util";

import { SallyportError } from "./errors.js";

const MAX_TIME_MS = 2 ** 31 - 1; // of node's timers; of one that is longer they make no time at all

/** The sentence says which argument it was. */
export function checkedBytes(value: Uint8Array, what: string): Uint8Array {
  if (!types.isUint8Array(value)) throw new SallyportError("badArgument", what);
  return value;
}

export function checkedText(value: string, what: string): string {
  if (typeof value !== "string" || value.includes("\0")) throw new SallyportError("badArgument", what);
  return value;
}

/** A whole number, 0 to `most`. */
export function checkedNumber(value: number, most: number, what: string): number {
  if (!Number.isSafeInteger(value) || value < 0 || value > most) throw new SallyportError("badArgument", what);
  return value;
}

/** 0 is for ever. */
export function checkedTime(timeoutMs: number): number {
  return checkedNumber(timeoutMs, MAX_TIME_MS, "timeoutMs");
}

/** How long a call may take. */
export function checkedPatience(timeoutMs: number): number {
  if (typeof timeoutMs !== "number" || !(timeoutMs > 0 && timeoutMs <= MAX_TIME_MS)) throw new SallyportError("badArgument", "timeoutMs");
  return timeoutMs;
}
