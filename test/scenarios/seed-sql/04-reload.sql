SELECT litmus_pgnats_reload_conf();
SELECT litmus_pgnats_reload_conf_force();
