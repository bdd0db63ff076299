// batches.ts - any number of items as calls that each fit one message. Part of: @sallyport/client.
import { SallyportError } from "./errors.js";

const MAX_ITEMS = 64; // of a call (proto/vault.capnp)
const MAX_MESSAGE_BYTES = 64 * 1024; // of a call, with all around it
const MESSAGE_OVERHEAD_BYTES = 512;
const ITEM_OVERHEAD_BYTES = 64; // pointers and padding of one item
const SHARED_MESSAGE_BYTES = 48 * 1024; // beyond it, items get a call of their own: answers are longer
const WINDOW = 16; // calls ahead of their answers; the vault allows 256

export type Batch<T> = readonly T[];

/** Asks for all items and gives their outcomes in order; one that fits no message is told so without asking. */
export async function inBatches<Item, T>(
  items: readonly Item[],
  bytesOf: (item: Item) => number,
  ask: (batch: Batch<Item>) => Promise<(T | SallyportError)[]>,
): Promise<(T | SallyportError)[]> {
  const outcomes: (T | SallyportError)[] = items.map(() => new SallyportError("tooLong"));
  const batches: { indices: number[]; bytes: number }[] = [];
  items.forEach((item, index) => {
    const bytes = bytesOf(item) + ITEM_OVERHEAD_BYTES;
    if (bytes > MAX_MESSAGE_BYTES - MESSAGE_OVERHEAD_BYTES) return;
    let batch = batches.at(-1);
    if (!batch || batch.indices.length === MAX_ITEMS || batch.bytes + bytes > SHARED_MESSAGE_BYTES) {
      batch = { indices: [], bytes: MESSAGE_OVERHEAD_BYTES };
      batches.push(batch);
    }
    batch.indices.push(index);
    batch.bytes += bytes;
  });
  let next = 0;
  const askSome = async (): Promise<void> => {
    for (let batch = batches[next++]; batch; batch = batches[next++]) {
      const answers = await ask(batch.indices.map((index) => items[index]!));
      if (answers.length !== batch.indices.length) throw new SallyportError("protocolError");
      batch.indices.forEach((index, i) => (outcomes[index] = answers[i]!));
    }
  };
  await Promise.all(Array.from({ length: Math.min(WINDOW, batches.length) }, askSome));
  return outcomes;
}
