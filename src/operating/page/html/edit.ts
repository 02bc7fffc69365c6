/** Forms that correct the payload of a dead letter, and enqueue another message like one. */
import { html } from "hono/html";
import { type Descriptors, shownPayload } from "../../../protobuf/typed/index.js";
import type { JobMessage, WholeDeadLetter } from "../../operate/index.js";
import type { FormContext } from "./filter.js";
import { hiddenFields, queryOf } from "./filter.js";
import { type Content, payloadBlock } from "./payload.js";
import { type Html, short, time } from "./text.js";

/** The longest payload that the form takes, below the limit of a form. */
const editedBytes = 60 * 1024;

/** Text of a payload in the form; undefined for one that is too long, or that a form cannot give back as it is. */
export function editableText(content: Content, descriptors: Descriptors | undefined): string | undefined {
  if (content.payload.length > editedBytes) return undefined;
  const { payload, encoding } = shownPayload(content.payload, content.headers, descriptors);
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
${payloadField(text)}
<p><input type="checkbox" id="f-any" name="any" value="yes"> <label for="f-any">Allow a payload that is not JSON</label></p>
<p><button type="submit" name="do" value="edit">Edit</button> <button type="submit" name="do" value="retry">Edit and retry</button> <button type="submit" name="do" value="new">Enqueue another one like it</button></p>
</form>
<p>"Enqueue another one like it" leaves the dead letter as it is, and enqueues a message with this payload and its topic, key and headers.</p>
${editNote(letter, undefined, now)}${back}`;
}

function payloadField(text: string): Html {
  return html`<p><label for="f-payload">Payload</label><br><textarea id="f-payload" name="typed-payload" spellcheck="false" autocomplete="off" rows="20">
${text}</textarea></p>`;
}

/**
 * Form that enqueues another message like one.
 *
 * @param text payload that the form has at first; undefined for one that no form can have
 * @param problem why the last attempt was refused
 */
export function likeForm(
  { id, topic, key, payload }: JobMessage,
  text: string | undefined,
  { prefix, token }: FormContext,
  problem?: string,
): Html {
  const back = html`<p><a href="${prefix}/message${queryOf({ id })}">Back to the message</a></p>`;
  if (text === undefined) return html`<p>This payload is too long for a form, or no plain text.</p>${back}`;
  const failure = problem === undefined ? "" : html`<p class="error">${short(problem)}</p>`;
  const keyText = key === undefined ? "" : html`, its key ${short(key)}`;
  return html`${failure}<p>A message for the topic ${short(topic)} with this payload${keyText} and its headers will be enqueued. Message ${id} stays as it is.${payload === undefined ? " Its payload is not kept: give one." : ""}</p>
<form method="post" action="${prefix}/message/like" enctype="multipart/form-data">${hiddenFields({ id, token })}
${payloadField(text)}
<p><button type="submit">Enqueue it</button></p></form>${back}`;
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
