/** Messages that leave their channel for the queue, or become dead letters, as their listener commits them. */
import type pg from "pg";

/** Message that leaves its channel. */
export interface LeftMessage {
  readonly topic?: string;
  readonly payload?: Uint8Array | string;
  readonly headers?: readonly (readonly [string, string])[];
  /** Only listener that may have it. Default: any listener of the topic. */
  readonly listener?: string;
  /** Key within its channel. */
  readonly lane?: string;
  readonly attempts?: number;
  readonly delayMs?: number;
  /** Makes it a dead letter. */
  readonly errorCode?: string;
  readonly errorMessage?: string;
}

/**
 * Commits the next messages of a channel as ones that leave it.
 *
 * @param listener name with its epoch
 * @param epoch the sender's epoch
 * @returns their places, `channel/epoch/number`
 */
export async function leave(
  client: pg.ClientBase,
  { name, epoch: ofName }: { readonly name: string; readonly epoch: number },
  channelId: number,
  messages: readonly LeftMessage[],
  epoch = 7,
): Promise<string[]> {
  const { rows } = await client.query<{ channel_name: string; number: number }>(
    `SELECT m.channel_name, coalesce((SELECT c.number FROM hawser.cursor_of(m.channel_id) AS c WHERE c.epoch = $2), 0)::int AS number
       FROM hawser_peer_data.channels AS m WHERE m.channel_id = $1`,
    [channelId, epoch],
  );
  const [{ channel_name, number: before }] = rows as [{ channel_name: string; number: number }];
  const payloads = messages.map(({ payload = "x" }) => Buffer.from(payload as string));
  const places = messages.map((_, index) => `${channel_name}/${epoch}/${before + index + 1}`);
  const left = [];
  for (const [index, { topic = "topic", headers = [], ...message }] of messages.entries()) {
    const { rows: ids } = await client.query("SELECT hawser.id_of_topic($1) AS id", [topic]);
    left.push({
      ...message,
      ...{ channel_id: channelId, epoch, number: before + index + 1, topic_id: ids[0].id, headers },
      ...{ listener: message.listener, lane: message.lane ?? "", message_id: places[index] },
      ...{ attempts: message.attempts ?? 0, delay_ms: message.delayMs, payload_bytes: payloads[index]!.length },
      ...{ error_code: message.errorCode, error_message: message.errorCode && (message.errorMessage ?? "no") },
    });
  }
  const { rows: committed } = await client.query(
    "SELECT held, moved FROM hawser.commit_cursors($1, $2, $3, $4, $5, $6, $7)",
    [
      ...[name, ofName, [channelId], [epoch], [before + messages.length]],
      ...[JSON.stringify(left), Buffer.concat(payloads)],
    ],
  );
  if (committed[0]?.held !== true || committed[0]?.moved !== true)
    throw new Error(`the messages of ${channel_name} have not left: ${JSON.stringify(committed)}`);
  return places;
}
