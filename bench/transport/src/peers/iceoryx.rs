//! iceoryx2's request-response: the best known shared-memory transport. Sleeping, with its own events as the doorbell.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use iceoryx2::port::client::Client;
use iceoryx2::port::listener::{Listener, ListenerWaitError};
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::server::Server;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, request_response};

use crate::peer::{Attached, Caller, Looking, Peer, Place, Tried, Waits, ready, until_input_closes};

/// iceoryx2.
pub struct Iceoryx;

/// The number of the client that asks, beside the payload: whom to wake.
type Asker = u64;
type Echo = request_response::PortFactory<ipc::Service, [u8], Asker, [u8], ()>;
type Bell = event::PortFactory<ipc::Service>;

/// No wait is longer without a look at the stop flag.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// A node, with the services that both sides open.
struct Ports {
    node: Node<ipc::Service>,
    place: Place,
}

impl Ports {
    fn new(place: &Place) -> Tried<Self> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        // Everything under names of this run: what a killed run leaves can be told from others'.
        config.global.set_root_path(&Path::new(place.folder.join("iox2").display().to_string().as_bytes())?);
        config.global.prefix = FileName::new(format!("{}-iox2-", place.name).as_bytes())?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
        Ok(Self { node, place: place.clone() })
    }

    fn echo(&self) -> Tried<Echo> {
        let clients = self.place.clients;
        let service = self.node.service_builder(&"echo".try_into()?).request_response::<[u8], [u8]>();
        let service = service.request_user_header::<Asker>().max_servers(1).max_clients(clients).max_nodes(clients + 2);
        Ok(service.max_loaned_requests(1).max_active_requests_per_client(1).open_or_create()?)
    }

    /// The event that wakes the server (`None`) or that client.
    fn bell(&self, client: Option<u64>) -> Tried<Bell> {
        let name = client.map_or("server".to_owned(), |number| format!("client-{number}"));
        let notifiers = self.place.clients.max(1) + 1;
        let service = self.node.service_builder(&name.as_str().try_into()?).event();
        Ok(service.max_notifiers(notifiers).max_listeners(1).max_nodes(notifiers + 1).open_or_create()?)
    }
}

impl Peer for Iceoryx {
    fn name(&self) -> &'static str {
        "iceoryx2"
    }

    fn serve(&self, place: &Place) -> Tried<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let wanted = stop.clone();
        std::thread::spawn(move || {
            until_input_closes();
            wanted.store(true, Ordering::Release);
        });
        let ports = Ports::new(place)?;
        let echo = ports.echo()?;
        let server = echo.server_builder().initial_max_slice_len(place.size).create()?;
        let bell = ports.bell(None)?;
        let listener = bell.listener_builder().create()?;
        let bells = (0..place.clients as u64).map(|number| ports.bell(Some(number))).collect::<Tried<Vec<_>>>()?;
        let notifiers: Vec<Notifier<ipc::Service>> =
            bells.iter().map(|bell| bell.notifier_builder().create()).collect::<Result<_, _>>()?;
        ready();
        while !stop.load(Ordering::Acquire) {
            if answer(&server, place, &notifiers)? {
                continue;
            }
            match place.waits {
                Waits::Spin => std::hint::spin_loop(),
                Waits::Sleep => sleep(&listener)?,
            }
        }
        Ok(())
    }

    fn attach(&self, place: &Place) -> Tried<Box<dyn Attached>> {
        Ok(Box::new(Joins { place: place.clone(), next: AtomicU64::new(0) }))
    }
}

/// Waits for an event, or a little while. The signal that lets a paused server go on interrupts it too.
fn sleep(listener: &Listener<ipc::Service>) -> Tried<()> {
    match listener.timed_wait(|_| {}, LONGEST_WAIT) {
        Ok(_) | Err(ListenerWaitError::InterruptSignal) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Answers one request, if one is there.
fn answer(
    server: &Server<ipc::Service, [u8], Asker, [u8], ()>,
    place: &Place,
    notifiers: &[Notifier<ipc::Service>],
) -> Tried<bool> {
    let Some(request) = server.receive()? else { return Ok(false) };
    let payload = request.payload();
    request.loan_slice_uninit(payload.len())?.write_from_slice(payload).send()?;
    if place.waits == Waits::Sleep {
        notifiers[*request.user_header() as usize].notify()?;
    }
    Ok(true)
}

struct Joins {
    place: Place,
    next: AtomicU64,
}

impl Attached for Joins {
    fn caller(&self) -> Tried<Box<dyn Caller>> {
        let ports = Ports::new(&self.place)?;
        // The clients of the turn before are gone: their numbers are free again.
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.place.clients as u64;
        let echo = ports.echo()?;
        let client = echo.client_builder().initial_max_slice_len(self.place.size).create()?;
        let (server_bell, own_bell) = (ports.bell(None)?, ports.bell(Some(number))?);
        let notifier = server_bell.notifier_builder().create()?;
        let listener = own_bell.listener_builder().create()?;
        let waits = self.place.waits;
        Ok(Box::new(One { client, notifier, listener, number, waits, _kept: (echo, server_bell, own_bell, ports) }))
    }
}

struct One {
    client: Client<ipc::Service, [u8], Asker, [u8], ()>,
    notifier: Notifier<ipc::Service>,
    listener: Listener<ipc::Service>,
    number: u64,
    waits: Waits,
    _kept: (Echo, Bell, Bell, Ports),
}

impl Caller for One {
    fn call(&mut self, payload: &[u8], read: &mut dyn FnMut(&[u8])) -> Tried<()> {
        let mut request = self.client.loan_slice_uninit(payload.len())?;
        *request.user_header_mut() = self.number;
        let pending = request.write_from_slice(payload).send()?;
        if self.waits == Waits::Sleep {
            self.notifier.notify()?;
        }
        let mut looking = Looking::default();
        loop {
            if let Some(response) = pending.receive()? {
                read(response.payload());
                return Ok(());
            }
            match self.waits {
                Waits::Spin => looking.on()?,
                Waits::Sleep if pending.is_connected() => sleep(&self.listener)?,
                // It has answered since the look, and let go of the request; or it is gone.
                Waits::Sleep => {
                    let response = pending.receive()?.ok_or("the server is gone")?;
                    read(response.payload());
                    return Ok(());
                }
            }
        }
    }
}
