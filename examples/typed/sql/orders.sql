-- A table of orders, and the function that takes them from the stream: it gets typed columns.
CREATE TABLE IF NOT EXISTS public.orders (id text PRIMARY KEY, tenant text, cents bigint, placed_at timestamptz, things bigint);

CREATE OR REPLACE FUNCTION public.take_order(payload bytea, subject text, headers jsonb) RETURNS void LANGUAGE sql AS $$
  INSERT INTO public.orders
  SELECT o.order_id, o.tenant, o.cents, o.placed_at, (SELECT sum(i.count) FROM unnest(o.items) AS i)
    FROM shop.read_order_placed(payload, headers) AS o
$$;

SELECT nats_subscribe_stream('ORDERS', 'public.take_order', name => 'orders', filter => ARRAY['orders.*.placed']);
