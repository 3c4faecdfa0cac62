//! iceoryx2, by polling: publish-subscribe with a topic in each direction, and request-response.

use iceoryx2::port::client::Client;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::process::Peer;
use crate::{Asker, Outcome};

type Kind = ipc::Service;

struct Topics<const N: usize> {
    out: Publisher<Kind, [u8; N], ()>,
    back: Subscriber<Kind, [u8; N], ()>,
    // The ports live on the node.
    _node: Node<Kind>,
}

struct Requests<const N: usize> {
    client: Client<Kind, [u8; N], (), [u8; N], ()>,
    _node: Node<Kind>,
}

impl<const N: usize> Topics<N> {
    fn open(name: &str, out: &str, back: &str) -> Outcome<Self> {
        let node = node()?;
        let topic = |which: &str| {
            let name = format!("{name}/{which}");
            Outcome::Ok(
                node.service_builder(&name.as_str().try_into()?)
                    .publish_subscribe::<[u8; N]>()
                    .open_or_create()?,
            )
        };
        Ok(Self {
            out: topic(out)?.publisher_builder().create()?,
            back: topic(back)?.subscriber_builder().create()?,
            _node: node,
        })
    }

    #[inline]
    fn send(&self, message: &[u8]) -> Outcome<()> {
        let sample = self.out.loan_uninit()?;
        sample.write_payload(message.try_into()?).send()?;
        Ok(())
    }
}

impl<const N: usize> Asker for Topics<N> {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        self.send(message)?;
        loop {
            if let Some(sample) = self.back.receive()? {
                answer.extend_from_slice(&sample[..]);
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }
}

impl<const N: usize> Asker for Requests<N> {
    #[inline]
    fn trip(&mut self, message: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        let request = self.client.loan_uninit()?;
        let pending = request.write_payload(message.try_into()?).send()?;
        loop {
            if let Some(response) = pending.receive()? {
                answer.extend_from_slice(&response[..]);
                return Ok(());
            }
            std::hint::spin_loop();
        }
    }
}

pub(crate) fn ask_topic(peer: &Peer, bytes: usize) -> Outcome<Box<dyn Asker>> {
    fn with<const N: usize>(peer: &Peer) -> Outcome<Box<dyn Asker>> {
        let name = name();
        let topics = Topics::<N>::open(&name, "there", "back")?;
        peer.give(&name, &[])?;
        peer.take()?;
        Ok(Box::new(topics))
    }
    match bytes {
        64 => with::<64>(peer),
        1024 => with::<1024>(peer),
        _ => Err("64 or 1024 bytes".into()),
    }
}

pub(crate) fn answer_topic(peer: &Peer, bytes: usize) -> Outcome<()> {
    fn with<const N: usize>(peer: &Peer) -> Outcome<()> {
        let (name, _) = peer.take()?;
        let topics = Topics::<N>::open(&name, "back", "there")?;
        peer.give("ready", &[])?;
        loop {
            match topics.back.receive()? {
                Some(sample) => topics.send(&sample[..])?,
                None if !peer.pause()? => return Ok(()),
                None => {}
            }
        }
    }
    match bytes {
        64 => with::<64>(peer),
        1024 => with::<1024>(peer),
        _ => Err("64 or 1024 bytes".into()),
    }
}

pub(crate) fn ask_service(peer: &Peer, bytes: usize) -> Outcome<Box<dyn Asker>> {
    fn with<const N: usize>(peer: &Peer) -> Outcome<Box<dyn Asker>> {
        let (name, node) = (name(), node()?);
        let service = node
            .service_builder(&name.as_str().try_into()?)
            .request_response::<[u8; N], [u8; N]>()
            .open_or_create()?;
        let client = service.client_builder().create()?;
        peer.give(&name, &[])?;
        peer.take()?;
        Ok(Box::new(Requests {
            client,
            _node: node,
        }))
    }
    match bytes {
        64 => with::<64>(peer),
        1024 => with::<1024>(peer),
        _ => Err("64 or 1024 bytes".into()),
    }
}

pub(crate) fn answer_service(peer: &Peer, bytes: usize) -> Outcome<()> {
    fn with<const N: usize>(peer: &Peer) -> Outcome<()> {
        let (name, _) = peer.take()?;
        let node = node()?;
        let service = node
            .service_builder(&name.as_str().try_into()?)
            .request_response::<[u8; N], [u8; N]>()
            .open_or_create()?;
        let server = service.server_builder().create()?;
        peer.give("ready", &[])?;
        loop {
            match server.receive()? {
                Some(request) => {
                    let response = request.loan_uninit()?;
                    response.write_payload(*request).send()?;
                }
                None if !peer.pause()? => return Ok(()),
                None => {}
            }
        }
    }
    match bytes {
        64 => with::<64>(peer),
        1024 => with::<1024>(peer),
        _ => Err("64 or 1024 bytes".into()),
    }
}

fn node() -> Outcome<Node<Kind>> {
    set_log_level(LogLevel::Fatal);
    Ok(NodeBuilder::new().create::<Kind>()?)
}

fn name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("toolb-bench/{}/{count}", std::process::id())
}
