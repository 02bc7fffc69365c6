/**
 * Messages as a wrapper takes them: all payloads in one, with where each begins and how long it is.
 */
import type { Subscription } from "../bindings.js";
import type { InboundMessage } from "../message.js";

/** The arguments of a wrapper, behind the token. */
export type PackedMessages = [
  payloads: Buffer,
  offsets: string,
  lengths: string,
  subjects: string[] | null,
  headers: (string | null)[] | null,
  ids: string,
];

/**
 * Packs them. Offsets are those of SQL, the first byte being 1.
 *
 * @param context what the ids begin with
 */
export function packed(
  subscription: Subscription,
  messages: readonly InboundMessage[],
  context: string,
): PackedMessages {
  const offsets: number[] = [];
  let at = 1;
  for (const { payload } of messages) {
    offsets.push(at);
    at += payload.length;
  }
  return [
    Buffer.concat(
      messages.map(({ payload }) => payload),
      at - 1,
    ),
    `{${offsets.join(",")}}`,
    `{${messages.map(({ payload }) => payload.length).join(",")}}`,
    subscription.takesSubject ? messages.map(({ subject }) => subject) : null,
    subscription.takesHeaders ? messages.map(({ headers }) => headers ?? null) : null,
    // Made of letters, digits, ".", "_" and "-", which need no quotes in an array.
    `{${messages.map(({ id }) => context + id).join(",")}}`,
  ];
}
