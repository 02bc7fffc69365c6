/** Enqueues messages for all listeners of a topic. */

/** Makes `public.enqueue_to_all`, which everybody may call. */
export const enqueueToAllSql = `
  CREATE OR REPLACE FUNCTION public.enqueue_to_all(p_topic text, p_payloads text[], p_key text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
    AS $$
  DECLARE
    v_before CONSTANT bigint[] := ARRAY(SELECT o.id FROM hawser.outbox AS o WHERE o.xid = pg_current_xact_id());
  BEGIN
    PERFORM hawser.peer_enqueue_text_batch(p_topic, p_payloads, key => p_key);
    UPDATE hawser.outbox AS o SET to_all = true WHERE o.xid = pg_current_xact_id() AND o.id <> ALL (v_before);
  END
  $$`;

/** Enqueues such messages, by a superuser. */
export async function enqueueToAll(
  query: (text: string, values?: unknown[]) => Promise<unknown>,
  topic: string,
  texts: readonly string[],
  key: string | null = null,
): Promise<void> {
  await query(enqueueToAllSql);
  await query("SELECT public.enqueue_to_all($1, $2, $3)", [topic, texts, key]);
}
