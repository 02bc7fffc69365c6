/** `hawser dead edit`: corrects the payload of a dead letter, or enqueues another message like it. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { protocolConstants } from "../../../generated/ts/settings/peer.js";
import { HawserError } from "../../foundation/errors/index.js";
import { readSmallFileSync } from "../../foundation/runtime/index.js";
import { type Descriptors, shownPayload } from "../../protobuf/typed/index.js";
import { enqueueLike } from "../console/index.js";
import { deadLetters, type WholeDeadLetter, withCommandDatabase } from "../operate/index.js";
import { type Arguments, flag, type Given, option, refusal } from "./command-line.js";
import { confirmed } from "./confirmation.js";
import { bytesOf, messageOf } from "./message-input.js";
import { print, printOutcomes } from "./output.js";

/** Options of `edit`. */
export const editOptions = {
  text: option("TEXT", "With edit: the new payload"),
  "payload-file": option("FILE", "With edit: file with the new payload; - is standard input"),
  base64: flag("With edit: the new payload is given in base64"),
  "any-format": flag("With edit: the payload need not be JSON, although it was"),
  retry: flag("With edit: retry it with the new payload"),
  "as-new": flag("With edit: enqueue another message like it, with the new or the same payload; the dead letter stays"),
} as const satisfies Arguments;

type Options = Given<typeof editOptions> & { readonly yes?: boolean | undefined; readonly json?: boolean | undefined };

/**
 * Corrects the payload of a dead letter, or enqueues another message like it.
 *
 * @param descriptors types by whose JSON typed payloads are edited and checked
 */
export async function edit(
  url: string | undefined,
  id: number,
  options: Options,
  descriptors: Descriptors | undefined,
): Promise<void> {
  const { retry = false, json = false } = options;
  const isNew = options["as-new"] ?? false;
  if (isNew && retry) throw refusal("dead", "edit", "--as-new enqueues another message: leave out --retry");
  if (options.text !== undefined && options["payload-file"] !== undefined)
    throw refusal("dead", "edit", "--text and --payload-file: leave out one of the two");
  await withCommandDatabase(url, async (database) => {
    const letters = deadLetters(database);
    const letter = await letters.get(id);
    if (letter === undefined)
      throw new HawserError(
        "invalid_argument",
        `there is no dead letter ${id}: retried, discarded or expired already? See \`hawser dead list\`.`,
      );
    const given = await payloadOf(letter, options, descriptors);
    if (given === undefined) {
      print(process.stderr, "Nothing was changed.");
      return;
    }
    const payload = given === letter.payload ? given : (descriptors?.encode(given, letter.headers) ?? given);
    if (!options.yes && !(await confirmed(async () => questionOf(letter, payload, isNew, retry)))) return;
    if (isNew) {
      const jobId = String(await enqueueLike(database, letter, payload));
      await printOutcomes([{ id, outcome: "copied", jobId }], json, () => `Enqueued message ${jobId}.`);
      return;
    }
    const edited = await letters.edit(id, payload, options["any-format"] ?? false);
    const [retried] = retry ? await letters.retry({ ids: [id] }) : [];
    const outcome = edited ? "edited" : "unchanged";
    const isRefused = retried?.outcome === "refused";
    const more = retried === undefined ? {} : { retry: retried.outcome };
    await printOutcomes([{ id, outcome, ...more }], json, () => {
      const state = edited ? `Edited dead letter ${id}` : `Dead letter ${id} has this payload already`;
      if (retried !== undefined && !isRefused) return `${state}, and retried it.`;
      return `${state}. It is not handled until \`hawser dead retry ${id}\`.`;
    });
    if (isRefused) throw new HawserError(retried.code, retried.message);
  });
}

/** @returns the new payload, `letter.payload` for the same one; undefined if the editor has left it as it was */
async function payloadOf(
  letter: WholeDeadLetter,
  options: Options,
  descriptors: Descriptors | undefined,
): Promise<Uint8Array | undefined> {
  const { text, base64 = false } = options;
  const file = options["payload-file"];
  if (text !== undefined) return bytesOf(text, base64);
  if (file !== undefined && file !== "-") {
    const bytes = bytesOfFile(file);
    return base64 ? bytesOf(Buffer.from(bytes).toString("latin1"), true) : bytes;
  }
  if (file === undefined && options["as-new"]) return letter.payload;
  if (file === "-" || !process.stdin.isTTY) return await messageOf(undefined, base64);
  return await editedPayload(letter, descriptors);
}

function bytesOfFile(path: string): Uint8Array {
  try {
    return readSmallFileSync(path, protocolConstants.maxStoredMessageBytes);
  } catch (cause) {
    throw new HawserError("invalid_argument", `--payload-file "${path}": ${(cause as Error).message}`, { cause });
  }
}

/** Has the payload edited by the editor of the terminal, in a file that only the user may read. */
async function editedPayload(
  letter: WholeDeadLetter,
  descriptors: Descriptors | undefined,
): Promise<Uint8Array | undefined> {
  const editor = process.env["VISUAL"] || process.env["EDITOR"];
  if (editor === undefined || editor === "")
    throw refusal("dead", "edit", "give --text or --payload-file, or set EDITOR");
  const { payload, encoding } = shownPayload(letter.payload, letter.headers, descriptors);
  if (encoding === "base64")
    throw refusal("dead", "edit", "the payload is no text; give --payload-file, or --text with --base64");
  const before = encoding === "json" ? `${JSON.stringify(payload, undefined, 2)}\n` : String(payload);
  const directory = await mkdtemp(join(tmpdir(), "hawser-edit-"));
  try {
    const path = join(directory, `dead-letter-${letter.id}.json`);
    await writeFile(path, before, { mode: 0o600 });
    const running = spawn("/bin/sh", ["-c", `${editor} "$0"`, path], { stdio: "inherit" });
    const [status] = (await once(running, "close")) as [number | null];
    if (status !== 0) throw refusal("dead", "edit", `the editor "${editor}" ended with the status ${status}`);
    const after = await readFile(path, "utf8");
    // Editors end the last line.
    const isEnded = !before.endsWith("\n") && after.endsWith("\n");
    const text = isEnded ? after.slice(0, -1) : after;
    return text === before ? undefined : Buffer.from(text);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function questionOf(letter: WholeDeadLetter, payload: Uint8Array, isNew: boolean, retries: boolean): string {
  if (isNew) return `Another message for the topic with ${payload.length} bytes will be handled. Enqueue it?`;
  const next = retries ? ", and it will be handled again" : "";
  return `The payload of dead letter ${letter.id}, ${letter.payloadBytes} bytes, will be replaced by ${payload.length} bytes${next}. Edit it?`;
}
