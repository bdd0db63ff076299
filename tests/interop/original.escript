#!/usr/bin/env escript
%% -*- erlang -*-
%% original.escript - the original curve_tun (Erlang) as a peer for original_test.py. Test instrument; uses the original's public calls
%% alone: connect, listen, accept, send, recv, close, and register of its registry, which is how it is told whom to let in.
%%
%% The original's compiled modules are found through ERL_LIBS; original.py sets it. Requests are lines on standard input,
%%     TAG VERB ARGUMENT...
%% each answered by one line, `TAG ok VALUE...` or `TAG error WHAT`, when it is done: each runs in a process of its own, so that a recv
%% that waits holds up nothing else. Texts are base64, the empty text is `=`. A socket has the name that the request gave it.
%%
%%     key                                  the public half of the original's (only) key
%%     allow IP KEY                         the one key that the original takes from that address
%%     connect NAME PORT KEY IP             a client from IP to 127.0.0.1:PORT, whose server must have KEY
%%     listen NAME PORT | accept NAME LISTENER MS
%%     send NAME TEXT... | recv NAME MS | close NAME
%%     flood NAME COUNT SEED SIZE,...       sends COUNT messages, message(SEED, I, SIZE) with sizes in turn
%%     drain NAME COUNT SEED SIZE,...       receives them, and compares each
%%     bytes NAME COUNT                     receives messages until they have COUNT bytes: their SHA-256
%%     stream NAME                          receives messages until an empty one: bytes, SHA-256
%%     echo NAME COUNT                      returns COUNT messages
%%     ended NAME MS                        waits for the end of the connection, before which no message may come: `closed` or `open`
%%
%% A recv that waits while the other side closes is never answered, and the first one after that runs into its time-out: the original
%% tells its program of a closed connection by the second call, which crashes. `ended` is made of that.
-mode(compile).

-define(RECV_MS, 60000).
-define(ENDED_STEP_MS, 200).

main([]) ->
    %% Its connections end in crashes, by design; their reports would go to standard output.
    ok = logger:set_primary_config(level, none),
    ok = io:setopts(standard_io, [binary, {encoding, latin1}]),
    sockets = ets:new(sockets, [named_table, public]),
    {ok, _} = application:ensure_all_started(curve_tun),
    say([<<"0">>, <<"ok">>]),
    requests().

requests() ->
    case io:get_line("") of
        Line when is_binary(Line) ->
            [Tag, Verb | Arguments] = binary:split(string:trim(Line), <<" ">>, [global]),
            spawn(fun() -> answer(Tag, Verb, Arguments) end),
            requests();
        _ ->
            halt(0)
    end.

answer(Tag, Verb, Arguments) ->
    try run(Verb, Arguments) of
        Values -> say([Tag, <<"ok">> | Values])
    catch
        Class:Reason -> say([Tag, <<"error">>, io_lib:format("~0P", [{Class, Reason}, 12])])
    end,
    %% A socket belongs to the process that made it.
    case lists:member(Verb, [<<"connect">>, <<"listen">>, <<"accept">>]) of
        true -> receive after infinity -> ok end;
        false -> ok
    end.

say(Words) ->
    io:put_chars([lists:join(<<" ">>, Words), <<"\n">>]).

run(<<"key">>, []) ->
    [text(curve_tun_vault_dummy:public_key())];
run(<<"allow">>, [Ip, Key]) ->
    ok = curve_tun_simple_registry:register(ip(Ip), bytes(Key)),
    [];
run(<<"connect">>, [Name, Port, Key, Ip]) ->
    {ok, Socket} = curve_tun:connect({127, 0, 0, 1}, binary_to_integer(Port), [{key, bytes(Key)}, {ip, ip(Ip)}]),
    keep(Name, Socket);
run(<<"listen">>, [Name, Port]) ->
    {ok, Socket} = curve_tun:listen(binary_to_integer(Port), [{reuseaddr, true}, {ip, {127, 0, 0, 1}}, {backlog, 1024}]),
    keep(Name, Socket);
run(<<"accept">>, [Name, Listener, Ms]) ->
    {ok, Socket} = curve_tun:accept(socket(Listener), binary_to_integer(Ms)),
    keep(Name, Socket);
run(<<"send">>, [Name | Texts]) ->
    [ok = curve_tun:send(socket(Name), bytes(Text)) || Text <- Texts],
    [];
run(<<"recv">>, [Name, Ms]) ->
    [text(received(socket(Name), binary_to_integer(Ms)))];
run(<<"close">>, [Name]) ->
    ok = curve_tun:close(socket(Name)),
    [];
run(<<"flood">>, [Name, Count, Seed, Sizes]) ->
    Socket = socket(Name),
    each(Count, Seed, Sizes, fun(_, Message) -> ok = curve_tun:send(Socket, Message) end);
run(<<"drain">>, [Name, Count, Seed, Sizes]) ->
    Socket = socket(Name),
    each(Count, Seed, Sizes, fun(I, Message) ->
        case received(Socket, ?RECV_MS) of
            Message -> ok;
            Other -> error({other_message, I, byte_size(Message), byte_size(Other)})
        end
    end);
run(<<"bytes">>, [Name, Count]) ->
    [digest(socket(Name), binary_to_integer(Count), crypto:hash_init(sha256))];
run(<<"stream">>, [Name]) ->
    stream(socket(Name), 0, crypto:hash_init(sha256));
run(<<"echo">>, [Name, Count]) ->
    Socket = socket(Name),
    [ok = curve_tun:send(Socket, received(Socket, ?RECV_MS)) || _ <- lists:seq(1, binary_to_integer(Count))],
    [];
run(<<"ended">>, [Name, Ms]) ->
    [ended(socket(Name), binary_to_integer(Ms))].

%% As message() of original.py.
message(Seed, I, Size) ->
    Block = crypto:hash(sha256, <<Seed:64, I:64>>),
    binary:part(binary:copy(Block, Size div 32 + 1), 0, Size).

each(Count, Seed, Sizes, Do) ->
    List = list_to_tuple([binary_to_integer(Size) || Size <- binary:split(Sizes, <<",">>, [global])]),
    [Do(I, message(binary_to_integer(Seed), I, element(I rem tuple_size(List) + 1, List)))
     || I <- lists:seq(0, binary_to_integer(Count) - 1)],
    [].

digest(_, 0, Hash) ->
    binary:encode_hex(crypto:hash_final(Hash));
digest(Socket, Left, Hash) when Left > 0 ->
    Message = received(Socket, ?RECV_MS),
    digest(Socket, Left - byte_size(Message), crypto:hash_update(Hash, Message)).

stream(Socket, Count, Hash) ->
    case received(Socket, ?RECV_MS) of
        <<>> -> [integer_to_binary(Count), binary:encode_hex(crypto:hash_final(Hash))];
        Message -> stream(Socket, Count + byte_size(Message), crypto:hash_update(Hash, Message))
    end.

ended(_, Left) when Left =< 0 ->
    <<"open">>;
ended(Socket, Left) ->
    try curve_tun:recv(Socket, ?ENDED_STEP_MS) of
        Message -> error({message, byte_size(Message)})
    catch
        exit:{timeout, _} -> ended(Socket, Left - ?ENDED_STEP_MS);
        exit:_ -> <<"closed">>
    end.

received(Socket, Ms) ->
    Message = curve_tun:recv(Socket, Ms),
    true = is_binary(Message),
    Message.

keep(Name, Socket) ->
    true = ets:insert_new(sockets, {Name, Socket}),
    [].

socket(Name) ->
    [{Name, Socket}] = ets:lookup(sockets, Name),
    Socket.

ip(Text) ->
    {ok, Ip} = inet:parse_address(binary_to_list(Text)),
    Ip.

text(<<>>) -> <<"=">>;
text(Bytes) -> base64:encode(Bytes).

bytes(<<"=">>) -> <<>>;
bytes(Text) -> base64:decode(Text).
