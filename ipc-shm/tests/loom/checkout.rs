//! Who may use a channel: its client and its next user never touch it at the same time, and one that is wanted, or given
//! back, comes back.

use loom::thread;
use molt_ipc_shm::layout::channel;
use molt_ipc_shm::mapping::SharedMapping;
use molt_ipc_shm::word::Word64;
use molt_ipc_shm::{checkout, slot};

use super::model::{GEOMETRY, Places, explore};

const CHANNEL: u32 = 0;

fn word(map: &SharedMapping) -> &Word64 {
    map.u64(GEOMETRY.channel(CHANNEL) + channel::CHECKOUT)
}

/// Plain bytes of the channel, for which two uses that nothing orders are an error of the model.
fn touch(map: &SharedMapping, number: u64) {
    map.write(GEOMETRY.request_ring(CHANNEL), &number.to_le_bytes());
}

/// The worker takes an idle channel back, and its next user leaves it idle in its turn; meanwhile the first one wants to
/// use it again.
#[test]
fn a_channel_that_was_taken_back_is_its_next_users_alone() {
    explore(None, || {
        let map = Places::default().channel(CHANNEL).map();
        let first = slot::open_channel(&map, &GEOMETRY, CHANNEL, 0);
        assert!(checkout::check_in(word(&map), first));
        let client = {
            let map = map.clone();
            thread::spawn(move || {
                let had = checkout::check_out(word(&map), first);
                if had {
                    touch(&map, 1);
                    assert!(checkout::check_in(word(&map), first), "nobody wants it");
                }
                had
            })
        };
        let taken = checkout::take_back(word(&map), first);
        if taken {
            slot::free_channel(&map, &GEOMETRY, CHANNEL, first);
            let second = slot::open_channel(&map, &GEOMETRY, CHANNEL, 1);
            touch(&map, 2);
            assert!(checkout::check_in(word(&map), second), "it is its own");
        }
        assert!(client.join().expect("the client") || taken, "an idle channel can be had by somebody");
    });
}

/// Wanted while its client checks it in: the client closes it, or the worker's next try finds it idle.
#[test]
fn a_channel_that_is_wanted_comes_back() {
    explore(None, || {
        let map = Places::default().channel(CHANNEL).map();
        let only = slot::open_channel(&map, &GEOMETRY, CHANNEL, 0);
        let client = {
            let map = map.clone();
            thread::spawn(move || checkout::check_in(word(&map), only))
        };
        let early = checkout::take_back(word(&map), only);
        if !early {
            checkout::want(word(&map), only);
        }
        let closed = !client.join().expect("the client");
        let late = checkout::take_back(word(&map), only);
        assert_eq!([early, closed, late].into_iter().filter(|back| *back).count(), 1, "once: {early} {closed} {late}");
    });
}

/// Its client gives it back while the worker asks for it. A finalizer that says so once more, when the channel is its next
/// user's, takes nothing from that one.
#[test]
fn a_channel_that_is_given_back_is_its_next_users_alone() {
    explore(None, || {
        let map = Places::default().channel(CHANNEL).map();
        let first = slot::open_channel(&map, &GEOMETRY, CHANNEL, 0);
        let client = {
            let map = map.clone();
            thread::spawn(move || {
                touch(&map, 1);
                checkout::give_back(word(&map), first);
            })
        };
        checkout::want(word(&map), first);
        let early = checkout::is_given_back(word(&map), first);
        if early {
            slot::free_channel(&map, &GEOMETRY, CHANNEL, first);
            let second = slot::open_channel(&map, &GEOMETRY, CHANNEL, 1);
            touch(&map, 2);
            checkout::give_back(word(&map), first);
            assert!(checkout::check_in(word(&map), second), "it is its own");
        }
        client.join().expect("the client");
        assert!(early || checkout::is_given_back(word(&map), first), "asked for or not, it comes back");
    });
}
