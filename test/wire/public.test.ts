/**
 * `hawser/frames` as a program uses it that speaks the protocol of peers itself.
 */
import { expect, it } from "vitest";
import { frames } from "../../src/jobs-and-peers/wire/public.js";

it("writes, reads and checks frames, whose types have the names of frames.proto", () => {
  const ack: frames.Ack = { epoch: 5, number: 7, credit: 1024, backlog: 0, busy: false, live: true, queued: 0 };
  const frame: frames.Frame = { $case: "ack", value: ack };
  frames.checkFrame(frame);
  const encoder = new frames.FrameEncoder({ maxFrameBytes: 1024 });
  encoder.append(frame);
  const decoder = new frames.FrameDecoder({ maxFrameBytes: 1024 });
  for (const chunk of encoder.take().chunks) decoder.push(chunk);
  expect(decoder.next()).toEqual(frame);
  expect(decoder.next()).toBeUndefined();
  expect(() => frames.checkFrame({ $case: "ack", value: { ...ack, number: -1 } })).toThrow(
    expect.objectContaining({ code: "invalid_argument" }),
  );
});
