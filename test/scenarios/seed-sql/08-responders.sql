SELECT litmus_pgnats_register_responder('rpc.ping', 'public.handle_ping'::regproc);
SELECT litmus_pgnats_unregister_responder('rpc.ping');
