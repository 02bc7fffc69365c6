/** `hawser request`: sends a request to one listener of a topic, and prints its answer. */
import { peerSettingsRanges } from "../../../generated/ts/settings/peer.js";
import { Descriptors, payloadLine, shownPayload } from "../../protobuf/typed/index.js";
import { type Arguments, defineCommand, flag, type Given, option, optional, required } from "./command-line.js";
import { type StopRequest, untilStopped } from "./long-running.js";
import { headersOf, messageOf } from "./message-input.js";
import { descriptorsOption, peerOptions } from "./options.js";
import { jsonText, Output, printable } from "./output.js";
import { quantityOf } from "./quantities.js";
import { withSendingPeer } from "./send.js";

const args = {
  topic: required("Topic of the listeners, one of which answers"),
  payload: optional(
    "The request. Without it the request is empty; with - standard input is the request, up to its end",
  ),
  name: option("NAME", "Name of the requesting peer. Default: the first free one of send-HOST-1, send-HOST-2, …"),
  from: option("TOPIC", "Topic to send under. Default: the peer's name"),
  timeout: option("TIME", "Time limit of the answer, such as 30s. Default: the request timeout of peers"),
  idempotent: flag("Ask another listener if the connection is lost, even if the first one may have started"),
  base64: flag("The request is given in base64"),
  header: option("NAME=VALUE", "A header; may be given several times", { multiple: true }),
  ...descriptorsOption,
  ...peerOptions,
  json: flag("Print the answer as one line of JSON"),
} as const satisfies Arguments;

export const command = defineCommand({
  details: "A request is never stored: it fails if no listener runs, or none answers in time",
  args,
  run: (given) =>
    untilStopped((stopRequest) => run(given, headersOf(given.header), stopRequest)).finally(() => {
      // An input that is no longer read must not keep the process alive.
      if (given.payload === "-" && !process.stdin.readableEnded) process.stdin.destroy();
    }),
  examples: [
    ["hawser request prices rope", "Ask one listener of the topic"],
    ["hawser request prices --timeout 30s - < question.json", "A file as the request, and more time for the answer"],
    ["hawser request prices rope --json | jq -r .payload", "Only the answer"],
  ],
});

async function run(given: Given<typeof args>, headers: [string, string][], { signal }: StopRequest): Promise<void> {
  const { topic, payload, base64 = false, idempotent = false, json = false } = given;
  const timeoutMs = quantityOf("duration", "--timeout", given.timeout, peerSettingsRanges.requestTimeoutMs);
  const descriptors = given.descriptors === undefined ? undefined : Descriptors.read(given.descriptors);
  const message = payload === undefined ? new Uint8Array() : await messageOf(payload, base64);
  await withSendingPeer(given, async (peer) => {
    const answer = await peer.request(topic, message, {
      signal,
      idempotent,
      ...(timeoutMs !== undefined && { timeoutMs }),
      ...(headers.length > 0 && { headers }),
    });
    const answered = [...answer.headers];
    const shown = shownPayload(answer.payload, answered, descriptors);
    const line = json ? jsonText({ peer: answer.peer, headers: answered, ...shown }) : printable(payloadLine(shown));
    await new Output().write(`${line}\n`);
  });
}
