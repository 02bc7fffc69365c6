BEGIN
  PERFORM hawser.refuse_uncommitted_server();
  PERFORM hawser.gateway_call('ReloadConf {}');
END
