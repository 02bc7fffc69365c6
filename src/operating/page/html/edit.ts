/** Form that corrects the payload of a dead letter. */
import { html } from "hono/html";
import { type Descriptors, shownPayload } from "../../../protobuf/typed/index.js";
import type { WholeDeadLetter } from "../../operate/index.js";
import type { FormContext } from "./filter.js";
import { hiddenFields } from "./filter.js";
import { payloadBlock } from "./payload.js";
import { type Html, short, time } from "./text.js";

/** The longest payload that the form takes, below the limit of a form. */
const editedBytes = 60 * 1024;

/** Text of a payload in the form; undefined for one that is too long, or that a form cannot give back as it is. */
export function editableText(letter: WholeDeadLetter, descriptors: Descriptors | undefined): string | undefined {
  if (letter.payload.length > editedBytes) return undefined;
  const { payload, encoding } = shownPayload(letter.payload, letter.headers, descriptors);
  if (encoding === "base64") return undefined;
  const text = encoding === "json" ? JSON.stringify(payload, undefined, 2) : String(payload);
  // Browsers change ends of lines, and drop characters that are not shown.
  const isKept = !/\p{Cc}/u.test(text.replace(/[\n\t]/g, ""));
  return isKept && Buffer.byteLength(text) <= editedBytes ? text : undefined;
}

/** Text that a form's field has: browsers end its lines with CR LF. */
export const typedText = (value: string): string => value.replaceAll("\r\n", "\n");

/**
 * Form with the payload.
 *
 * @param text what the form has at first
 * @param problem why the last attempt was refused
 */
export function editForm(
  letter: WholeDeadLetter,
  text: string | undefined,
  { prefix, token, now }: FormContext,
  problem?: string,
): Html {
  const { id } = letter;
  const back = html`<p><a href="${prefix}/dead/${id}">Back to the dead letter</a></p>`;
  if (text === undefined)
    return html`<p>This payload is too long for a form, or no plain text: <code>hawser dead edit ${id} --payload-file FILE</code> replaces it.</p>${back}`;
  const failure = problem === undefined ? "" : html`<p class="error">${short(problem)}</p>`;
  return html`${failure}<p>The original payload stays until the message has been handled or discarded.</p>
<form method="post" action="${prefix}/dead/${id}/edit" enctype="multipart/form-data">${hiddenFields({ token })}
<p><label for="f-payload">Payload</label><br><textarea id="f-payload" name="typed-payload" spellcheck="false" autocomplete="off" rows="20">
${text}</textarea></p>
<p><input type="checkbox" id="f-any" name="any" value="yes"> <label for="f-any">It need not be JSON, although it was</label></p>
<p><button type="submit" name="do" value="edit">Edit</button> <button type="submit" name="do" value="retry">Edit and retry</button> <button type="submit" name="do" value="new">Enqueue another one like it</button></p>
</form>
<p>"Enqueue another one like it" leaves the dead letter as it is, and enqueues a message with this payload and its topic, key and headers.</p>
${editNote(letter, undefined, now)}${back}`;
}

/** Correction of a letter: who, when, and the original payload. Empty if there was none. */
export function editNote(letter: WholeDeadLetter, descriptors: Descriptors | undefined, now: number): Html | string {
  const { edit } = letter;
  if (edit === null) return "";
  const often = edit.edits === 1 ? "" : `, last of ${edit.edits} times`;
  return html`<h2>Original payload</h2>
<p>Edited by ${short(edit.by)}, ${time(new Date(edit.at), now)}${often}. Before, it was:</p>
${payloadBlock({ ...letter, payload: edit.original }, descriptors)}\n`;
}
