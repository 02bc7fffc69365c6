/** Messages that leave their channel while their handlers run, whose topic's name is known late. */
import { expect, it } from "vitest";
import type { HandlerResult, LeavingMessage, StartedMessage } from "../../src/jobs-and-peers/channel/index.js";
import { LeavingMessages } from "../../src/jobs-and-peers/peer/receiving/leaving-messages.js";

const done: HandlerResult = { kind: "done" };
const channel = { channelId: 1, channelName: "a:t:b" };

function bench() {
  const names = new Map<number, string>();
  const log: string[] = [];
  const receiver = {
    channelCalls: { serves: () => true, topics: { known: (id: number) => names.get(id) } },
    worker: {
      current: 7n,
      adopt: ({ topic, rank }: { topic: string; rank: bigint }) => {
        log.push(`goes on with ${topic} ${rank}`);
        return ({ kind }: HandlerResult) => log.push(`ends ${topic} ${rank}: ${kind}`);
      },
    },
    context: { sender: { name: "b" }, store: { queue: { server: "here" } } },
  };
  const messages = new LeavingMessages(receiver as never, { source: channel, givenUp: () => undefined } as never);
  const turn = { attempts: 1 } as StartedMessage;
  const message = { position: { epoch: 1, number: 1 }, topicId: 3, payload: Buffer.of(1), encoding: undefined };
  const leaving = { message, key: undefined, attempts: 0, failures: [], isSuspect: false, turn };
  messages.add([leaving as never as LeavingMessage]);
  const [left] = messages.take(() => undefined)!;
  const commit = (): void => messages.onCommitted([left!], new Map([[left!, { role: "r", rank: 9n }]]));
  return { names, log, messages, turn, commit };
}

it("end as rows of their topic, whether its name is known at the commit, at the end of the handler, or never", () => {
  const known = bench();
  known.names.set(3, "t");
  known.commit();
  expect(known.log).toEqual(["goes on with t 9"]);
  expect(known.messages.finish(known.turn, done)).toBe(true);
  expect(known.log).toEqual(["goes on with t 9", "ends t 9: done"]);

  const late = bench();
  late.commit();
  expect(late.log).toEqual([]);
  late.names.set(3, "t");
  late.messages.finish(late.turn, done);
  expect(late.log).toEqual(["goes on with t 9", "ends t 9: done"]);

  const never = bench();
  never.messages.finish(never.turn, done);
  never.commit();
  expect(never.log).toEqual(["goes on with topic id 3 9", "ends topic id 3 9: done"]);
});
